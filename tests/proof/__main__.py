"""`make prove`: change modules on real servers under load, and judge what clients saw.

python -m tests.proof [--seed N] [--topology NAME] [--minutes N]
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random, SystemRandom
from traceback import format_exception

from modfleet.proof.certificate import Run, write
from modfleet.proof.checker import Verdict
from tests.fleet import running_fleet, short_folder
from tests.proof.packages import packages_of
from tests.proof.patience import patient
from tests.proof.rig import new_rig
from tests.proof.run import Trial
from tests.proof.schedule import UPGRADES
from tests.proof.topologies import TOPOLOGIES

#: The acknowledged calls of a whole proof, over all topologies.
CALLS = 1_000_000


def main() -> int:
    given = _arguments()
    made_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = given.topology or list(TOPOLOGIES)
    folder = given.out or short_folder()
    hurt = _hurt(given.faults, names, given.seed)
    # Faults hurt the control plane and the machine, which the others would notice.
    groups = [[each for each in names if each not in hurt], sorted(hurt)]
    turns = [-(-len(each) // given.jobs) for each in groups]
    end = time.monotonic() + given.minutes * 60
    print(f"seed {given.seed}, histories in {folder}", flush=True)  # noqa: T201 - the person waits for minutes
    done: list[Run] = []
    for number, group in enumerate(groups):
        seconds = max(0.0, end - time.monotonic()) / max(1, sum(turns[number:]))
        trials = [
            Trial(
                topology=each,
                seed=given.seed,
                upgrades=given.upgrades,
                calls=given.calls // len(names),
                seconds=seconds,
            )
            for each in group
        ]
        done += _proven(trials, folder, jobs=given.jobs, is_hurt=number == 1)
    certificate = write(folder, done, made_at=made_at, release=version("modfleet"))
    print(  # noqa: T201 - the answer
        f"seed {given.seed}: violations: {certificate['violations']}, acknowledged: {certificate['acknowledged']:,}; "
        f"{folder}/certificate.md"
    )
    return int(not certificate["proven"] or len(done) < len(names))


def _proven(trials: Sequence[Trial], folder: Path, *, jobs: int, is_hurt: bool) -> Iterator[Run]:
    """Prove these on one control plane. Print each result, also the errors of those that have none."""
    if not trials:
        return
    with ExitStack() as stack:
        rig = stack.enter_context(new_rig()) if is_hurt else None
        fleet = stack.enter_context(running_fleet(nodes=0, environ=dict(rig.control_clock.environ) if rig else None))
        if rig:
            fleet.api = stack.enter_context(patient(fleet))
        packages = stack.enter_context(packages_of(fleet))
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        trials = [replace(each, rig=rig) for each in trials]
        started = [pool.submit(each.prove, packages, folder / each.topology) for each in trials]
        for trial, future in zip(trials, started, strict=True):
            if error := future.exception():
                print(f"{trial.title}: not proven\n", *format_exception(error), flush=True)  # noqa: T201 - the answer
                continue
            run = future.result()
            print(run.title, *_lines(run.verdict), sep="\n  ", flush=True)  # noqa: T201 - the answer
            yield run


def _hurt(which: str, names: Sequence[str], seed: int) -> set[str]:
    """The topologies that get faults: one of four."""
    if which == "some":
        return set(Random(f"{seed} hurt").sample(sorted(TOPOLOGIES), len(TOPOLOGIES) // 4)) & set(names)
    return set(names) if which == "all" else set()


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"seconds: {verdict.seconds:.0f}"
    yield f"changes: {_counts(verdict.changes)}"
    yield f"acknowledged: {verdict.acknowledged:,}; writes: {verdict.writes:,}; errors that were allowed: {_counts(verdict.errors)}"
    yield (
        f"longest stall: {verdict.longest_stall:.3f} s; on a server that nothing changes: {verdict.control_stall:.3f} s; "
        f"while a server restarts: {verdict.longest_restart_stall:.3f} s"
    )
    yield f"violations: {_counts(Counter(each.rule for each in verdict.violations))}"
    yield from (f"{each.rule}: {each.message}" for each in verdict.violations[:10])


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "0"


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="python -m tests.proof", description=(__doc__ or "").splitlines()[0])
    made.add_argument(
        "--seed", type=int, default=SystemRandom().randrange(10**6), help="The same seed, the same changes."
    )
    made.add_argument("--topology", action="append", choices=list(TOPOLOGIES), help="Only this one. May be repeated.")
    made.add_argument("--minutes", type=float, default=25, help="The longest time for the changes of all topologies.")
    made.add_argument("--upgrades", type=int, default=UPGRADES, help="Upgrades of each topology.")
    made.add_argument("--calls", type=int, default=CALLS, help="Calls of clients, over all topologies.")
    made.add_argument("--jobs", type=int, default=2, help="Topologies at a time.")
    made.add_argument(
        "--faults",
        choices=["some", "all", "none"],
        default="some",
        help="Which topologies are hurt: one of four by default.",
    )
    made.add_argument("--out", type=Path, help="Where the histories go; a new folder by default.")
    return made.parse_args()


if __name__ == "__main__":
    sys.exit(main())
