"""Judges a proof by what clients saw and what the servers have at the end. Knows no server, and asks none."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from modfleet.failure import UsageError
from modfleet.proof.history import FINAL, RESTARTED, Change, Kind, read_calls, read_changes
from modfleet.proof.rules.counts import Counts, check_presence
from modfleet.proof.rules.data import Data
from modfleet.proof.rules.dumps import load_dumps
from modfleet.proof.rules.errors import Errors
from modfleet.proof.rules.reads import Reads
from modfleet.proof.rules.restarts import check_restarts
from modfleet.proof.rules.timeline import Timeline
from modfleet.proof.rules.versions import Versions
from modfleet.proof.rules.violation import Violation, Watcher
from modfleet.proof.rules.waits import Waits

__all__ = ["Limits", "Verdict", "Violation", "check"]


@dataclass(frozen=True, slots=True)
class Limits:
    #: A call must be acknowledged after so many seconds, and errors must end so many seconds after a restart.
    retry_seconds: float = 2.0
    #: The longest stall may be so many times that of the control client. None: measure the stalls, do not judge them.
    stall_ratio: float | None = 3.0
    #: False if the servers were not restarted at the end.
    restarted: bool = True


class Verdict(msgspec.Struct):
    violations: list[Violation]
    #: Acknowledged calls, and how many of them wrote and read.
    acknowledged: int
    writes: int
    reads: int
    #: The errors that were allowed, by their first word.
    errors: dict[str, int]
    #: The longest wait for an acknowledgement in seconds: while no server restarted, while one did, and of the control client.
    longest_stall: float
    longest_restart_stall: float
    control_stall: float
    #: The changes by action.
    changes: dict[str, int]
    #: Acknowledged writes that a server lost because it was killed before it had saved them.
    lost_by_faults: int
    #: From the first call to the last answer.
    seconds: float
    keys_lost_by_faults: list[str] = []


DEFAULT = Limits()


def check(folder: Path, limits: Limits = DEFAULT) -> Verdict:
    """Return all violations in the files of a proof, and what was counted.

    Reads each history once. The memory grows with the keys and writes. Raises: `UsageError` if a file cannot be read.
    """
    with _readable(folder):
        changes = list(read_changes(folder))
        final, restarted = load_dumps(folder, FINAL), load_dumps(folder, RESTARTED)
    timeline = Timeline(changes, retry_seconds=limits.retry_seconds)
    counts, errors, versions, reads, data = (
        Counts(),
        Errors(timeline),
        Versions(timeline),
        Reads(timeline),
        Data(timeline),
    )
    waits = Waits(timeline, retry_seconds=limits.retry_seconds, stall_ratio=limits.stall_ratio)
    _show_calls(folder, counts, (counts, errors, waits, versions, reads, data))
    return Verdict(
        violations=[
            *check_presence(counts, timeline, final, restarted, needs_control=limits.stall_ratio is not None),
            *errors.violations(),
            *waits.violations(),
            *versions.violations(),
            *reads.violations(),
            *data.violations(final),
            *(check_restarts(final, restarted) if limits.restarted else ()),
        ],
        acknowledged=counts.of(*Kind),
        writes=counts.of(Kind.ADD, Kind.SET),
        reads=counts.of(Kind.GET),
        errors=dict(errors.allowed),
        longest_stall=waits.longest,
        longest_restart_stall=waits.longest_restart,
        control_stall=waits.control,
        changes=_by_action(changes),
        lost_by_faults=len(data.lost_by_faults),
        keys_lost_by_faults=sorted({key for key, _ in data.lost_by_faults}),
        seconds=counts.seconds,
    )


def _by_action(changes: Iterable[Change]) -> dict[str, int]:
    """Count the changes. A rollout counts once for each action."""
    rollouts = dict.fromkeys((each.uid, each.action) for each in changes if each.uid)
    others = [each.action for each in changes if not each.uid]
    return dict(Counter([*(action for _, action in rollouts), *others]))


def _show_calls(folder: Path, counts: Counts, watchers: tuple[Watcher, ...]) -> None:
    see = [watcher.see for watcher in watchers]
    for path in sorted(folder.glob("history-*.ndjson")):
        counts.begin(path.stem.removeprefix("history-"))
        with _readable(path):
            for call in read_calls(path):
                for each in see:
                    each(call)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename or path}: {error.strerror}.") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path} is not what a proof has: {error}.") from error
