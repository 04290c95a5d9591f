"""The restart in progress on this node, kept on disk: an agent that is killed in between finishes it at its next start."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

import decoding
from durable import write_file
from rollout.agent.failover.failover import FailedOver
from rollout.agent.failover.shard import Failover
from rollout.agent.failure import Failure
from rollout.agent.settings import RestartWay
from rollout.messages import Action, Command, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A restart of the server by an operation. `run_id`: of the process before it. `way` and `unit`: how it is restarted; `none` if
    the operation only fails over.

    `failover`: the one that has begun before, and `failed_over` how it has ended; None without one. `is_stopped`: the agent has
    called what ends the process, or was about to.
    """

    rollout: str
    module_name: str
    version: int
    generation: int
    attempt: int = 1
    action: Action
    run_id: str
    way: RestartWay
    unit: str
    failover: Failover | None = None
    failed_over: FailedOver | None = None
    is_stopped: bool = False

    @classmethod
    def begun(cls, command: Command, *, run_id: str, way: RestartWay, unit: str = "") -> Self:
        """Return what is noted when the operation of the command begins."""
        return cls(
            rollout=command.rollout,
            module_name=command.module_name,
            version=command.version,
            generation=command.generation,
            attempt=command.attempt,
            action=command.action,
            run_id=run_id,
            way=way,
            unit=unit,
        )

    @property
    def restarts(self) -> bool:
        return self.way != "none"

    @property
    def environ(self) -> dict[str, str]:
        """What the commands of the agent's settings get in their environment, apart from the node's name."""
        return {
            "ROLLOUT": self.rollout,
            "MODULE": self.module_name,
            "VERSION": str(self.version),
            "ACTION": str(self.action),
        }


class HeldFile:
    """The file in the journal's directory. Threads may read it while one writes."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".restart.json"

    def read(self) -> Held | None:
        """Return the restart in progress. Raises: `Failure` (io_error) if the file cannot be read."""
        try:
            return decoding.decode(self._path.read_bytes(), Held)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise Failure(Reason.IO_ERROR, f"{self._path} is damaged ({error}). See docs/howto/restarts.md.") from error

    def ended(self) -> tuple[str, ...]:
        """Return the `run_id` of the process that an agent has ended before it was killed, if any."""
        with suppress(Failure):
            held = self.read()
            return (held.run_id,) if held and held.is_stopped else ()
        return ()

    def of(self, command: Command) -> Held | None:
        """Return the restart in progress if it belongs to this command's operation. Raises: as `read`."""
        held = self.read()
        asked = (command.module_name, command.generation, command.attempt)
        return held if held and (held.module_name, held.generation, held.attempt) == asked else None

    def write(self, held: Held) -> None:
        """Raises: `OSError`."""
        write_file(self._path, msgspec.json.encode(held), mode=0o600)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
