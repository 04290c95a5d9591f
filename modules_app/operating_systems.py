"""Operating systems as packages and nodes name them, and which builds fit a node. Knows no Django."""

import re

#: What a build that asks for no operating system is for.
ANY = "linux"
LONGEST = 32
#: Distributions whose binaries are those of another one.
_SAME_AS = {
    "almalinux": "rhel",
    "centos": "rhel",
    "ol": "rhel",
    "oracle": "rhel",
    "redhat": "rhel",
    "rocky": "rhel",
}


def operating_system(name: str) -> str:
    """The distribution with its major version: `rhel9` for `rhel9`, `Rocky 9.3` and `centos9`; empty for no name."""
    found = re.fullmatch(r"([a-z][a-z_-]*)([0-9]*)(\.[0-9]+)*", name.lower().replace(" ", ""))
    if found is None:
        return ""
    known = f"{_SAME_AS.get(found[1], found[1])}{found[2]}"
    return known if len(known) <= LONGEST else ""


def fitting_platforms(platform: str, operating_system: str) -> tuple[str, ...]:
    """The platforms of the builds that fit a node, the closest first.

    `platform` is such as `linux/x86_64`. A node that does not name its `operating_system` fits no build that asks for
    one.
    """
    machine = platform.partition("/")[2]
    return (f"{operating_system}/{machine}", platform) if operating_system else (platform,)
