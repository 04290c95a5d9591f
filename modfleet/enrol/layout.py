"""Where the files of a node are, and its settings as `/etc/modfleet/agents/<node>.env` has them."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modfleet.enrol.host import Host
from modfleet.failure import UsageError

SETTINGS = "/etc/modfleet/agents"
UNIT = "/etc/systemd/system/modfleet-agent@.service"
HEADER = "# Written by `modfleet agent install`. A further run keeps the lines that you add."


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The files of one node, as absolute paths of the host."""

    node: str

    @property
    def settings(self) -> str:
        return f"{SETTINGS}/{self.node}.env"

    @property
    def former_broker_url(self) -> str:
        """Return the file with the broker's URL and password of an agent that has no identity."""
        return f"{SETTINGS}/{self.node}.broker_url"

    @property
    def state(self) -> str:
        return f"/var/lib/modfleet-agent/{self.node}"

    @property
    def identity(self) -> str:
        return f"{self.state}/identity.json"

    @property
    def server_password(self) -> str:
        return f"{self.state}/server_password"

    @property
    def control_ca(self) -> str:
        return f"{self.state}/control_ca.pem"

    @property
    def broker_ca(self) -> str:
        return f"{self.state}/broker_ca.pem"

    @property
    def journal(self) -> str:
        return f"{self.state}/journal"

    @property
    def modules(self) -> str:
        return f"{self.state}/modules"

    @property
    def library(self) -> str:
        """Return the directory of modules for servers that may execute only what is in /usr/lib."""
        return f"/usr/lib/modfleet/{self.node}"

    @property
    def unit(self) -> str:
        return f"modfleet-agent@{self.node}.service"

    @property
    def unit_drop_in(self) -> str:
        return f"/etc/systemd/system/{self.unit}.d/server.conf"

    @property
    def broker_url_drop_in(self) -> str:
        return f"/etc/systemd/system/{self.unit}.d/broker_url.conf"


def server_drop_in(unit: str) -> str:
    return f"/etc/systemd/system/{unit}.d/modfleet.conf"


def read_settings(host: Host, node: str) -> dict[str, str]:
    """Return the node's settings; none if the file does not exist. Raises: `UsageError`."""
    return settings_in(host.path(Layout(node=node).settings))


def settings_in(path: Path) -> dict[str, str]:
    """Return the settings in the file; none if it does not exist. Raises: `UsageError`."""
    return dict(pair for _, pair in _lines(path) if pair)


def settings_text(host: Host, node: str, settings: Mapping[str, str]) -> bytes:
    """Return the file with these settings. Comments, and lines that do not change, stay as they are."""
    left = dict(settings)
    kept = []
    present = list(_lines(host.path(Layout(node=node).settings)))
    for line, pair in present or [(HEADER, None)]:
        if pair is None:
            kept.append(line)
        elif pair[0] in left:
            value = left.pop(pair[0])
            kept.append(line if value == pair[1] else setting_line(pair[0], value))
    kept += [setting_line(name, value) for name, value in left.items()]
    return "".join(f"{line}\n" for line in kept).encode()


def nodes_of(host: Host) -> Iterator[str]:
    """Yield the names of the nodes of this host."""
    yield from sorted(path.name.removesuffix(".env") for path in host.path(SETTINGS).glob("*.env"))


def unit_text(programs: Path) -> str:
    """Return the unit of the agents, with the directory of this installation's programs."""
    text = Path(__file__).with_name("modfleet-agent@.service").read_text()
    return text.replace("/opt/modfleet/bin/", f"{programs}/".replace("%", "%%"))


def _lines(path: Path) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Yield each line of the file, with its name and value if it has them. Raises: `UsageError`."""
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            words = shlex.split(line, comments=True)
            name, equals, value = words[0].partition("=") if words else ("", "", "")
            yield line, (name, value) if equals else None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} cannot be read: {reason}.") from error


def setting_line(name: str, value: str) -> str:
    """Return a line that systemd and a shell read in the same way."""
    return f"{name}={value if re.fullmatch('[A-Za-z0-9_.,:/@?=%+-]*', value) else shlex.quote(value)}"
