"""The names of operating systems in packages and on nodes, and which builds fit a node. Knows no Django."""

import re

#: The platform prefix of builds for any operating system.
ANY = "linux"
LONGEST = 32
#: Distributions that run the binaries of another one.
_SAME_AS = {
    "almalinux": "rhel",
    "centos": "rhel",
    "ol": "rhel",
    "oracle": "rhel",
    "redhat": "rhel",
    "rocky": "rhel",
}


def operating_system(name: str) -> str:
    """Return the distribution with its major version: `rhel9` for `rhel9`, `Rocky 9.3` and `centos9`. Empty for an empty name."""
    found = re.fullmatch(r"([a-z][a-z_-]*)([0-9]*)(\.[0-9]+)*", name.lower().replace(" ", ""))
    if found is None:
        return ""
    known = f"{_SAME_AS.get(found[1], found[1])}{found[2]}"
    return known if len(known) <= LONGEST else ""


def fitting_platforms(platform: str, operating_system: str) -> tuple[str, ...]:
    """Return the platforms of the builds that fit a node, the closest first.

    `platform` is a name such as `linux/x86_64`. A node without an `operating_system` fits only builds for any system.
    """
    machine = platform.partition("/")[2]
    return (f"{operating_system}/{machine}", platform) if operating_system else (platform,)
