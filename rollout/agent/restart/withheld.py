"""What keeps the server from becoming the master, kept on disk: an agent that is killed restores it later."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

import decoding
from durable import write_file
from rollout.agent.failure import Failure
from rollout.messages import Reason

#: With these values, neither Sentinel nor a cluster makes the replica the master by itself.
PRIORITY, NO_FAILOVER = "replica-priority", "cluster-replica-no-failover"
VALUES = {PRIORITY: "0", NO_FAILOVER: "yes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """An operation that has put a version in the place of another one. `withholds`: until the control plane says otherwise, the
    server must not become the master."""

    rollout: str
    module_name: str
    version: int
    withholds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """`holds`: in the order in which they began. `parameter`: the one that is set for them. `former`: its value before, empty if it
    has that value. `line`: the value that the server's configuration file has to get, empty if it is right."""

    holds: tuple[Hold, ...] = ()
    parameter: str = ""
    former: str = ""
    line: str = ""

    @property
    def is_needed(self) -> bool:
        return any(each.withholds for each in self.newest)

    @property
    def is_set(self) -> bool:
        """Return True if the server has our value instead of another one."""
        return self.former not in {"", VALUES.get(self.parameter)}

    @property
    def newest(self) -> tuple[Hold, ...]:
        """The newest hold of each module: it is about the version that the server has loaded."""
        return tuple({each.module_name: each for each in self.holds}.values())


class WithheldFile:
    """The file in the journal's directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".withheld.json"

    def read(self) -> Withheld:
        """Raises: `Failure` (io_error) if the file cannot be read."""
        try:
            return decoding.decode(self._path.read_bytes(), Withheld)
        except FileNotFoundError:
            return Withheld()
        except (OSError, msgspec.MsgspecError) as error:
            raise Failure(Reason.IO_ERROR, f"{self._path} is damaged ({error}). See docs/howto/restarts.md.") from error

    def write(self, withheld: Withheld) -> None:
        """Raises: `OSError`."""
        if withheld.holds or withheld.former or withheld.line:
            write_file(self._path, msgspec.json.encode(withheld), mode=0o600)
        else:
            self._path.unlink(missing_ok=True)
