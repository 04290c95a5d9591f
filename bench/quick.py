"""`make bench-quick`: how fast a rollout, a poll and the log are, as ratios to floors and peers measured beside them.

Each round measures everything once, one after the other, so that a machine that slows down slows all of them; what is
printed are the medians of the rounds, and the ratios are medians of the rounds' own ratios.

python -m bench.quick --nodes 100 --hosts 10 --rounds 3 --poll-seconds 2
"""

import argparse
import json
import logging
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import floor
from bench.fleet import fleet
from bench.package import build_package
from bench.peer import FORKS, Peer
from bench.polling import CONNECTIONS, targets
from bench.processors import PARTS

RESULTS = Path(__file__).with_name("results")
FIRST_VERSION = 10000
WORKERS = 2
#: Beside the parts of the cluster, whose names are in `processors.PARTS`.
FLOOR = "floor"
Round = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Options:
    nodes: int = 100
    #: Ansible's: it is slow enough to be measured with fewer.
    hosts: int = 10
    rounds: int = 3
    #: Bytes of the package, about.
    size: int = 3_000_000
    poll_rounds: int = 5
    poll_seconds: float = 2.0
    many: int = 1000
    #: Whether the log is measured.
    log: int = 1
    #: An empty folder to work in, kept in the end; otherwise a temporary one.
    folder: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    what: str
    value: str
    ratio: str = ""
    aim: str = ""


def measure_rollouts(folder: Path, options: Options, tell: Callable[[str], None]) -> tuple[list[Round], list[Round]]:
    """A round each: seconds per node of the floor, of a rollout and of Ansible; processor seconds per node by part."""
    tell(f"packages of {options.size / 1e6:.1f} MB, a control plane, {options.nodes} nodes in {WORKERS} workers")
    packages = [
        build_package(folder / "packages", version=FIRST_VERSION + number, size=options.size)
        for number in range(options.rounds + 1)
    ]
    peer = Peer(folder / "peer", hosts=options.hosts) if options.hosts else None
    with fleet(folder, nodes=options.nodes, processes=WORKERS, tell=tell) as made:
        made.roll_out(*made.upload(packages[0]))  # each process has done it once
        forks = _best_forks(peer, packages[0], tell) if peer else 0
        rounds: list[Round] = []
        processors: list[Round] = []
        for number, package in enumerate(packages[1:], start=1):
            digest, members = floor.digest_of(package), floor.digests_of_members(package)
            uploaded = made.upload(package)
            nodes = [folder / "floor" / name / uploaded[0] / str(uploaded[1]) for name in made.nodes]
            began, floor_began = time.perf_counter(), time.process_time()
            floor.install_everywhere(package, digest=digest, members=members, module="greet.so", targets=nodes)
            bare = (time.perf_counter() - began) / options.nodes
            floor_took, before = time.process_time() - floor_began, made.processor_seconds()
            ours = made.roll_out(*uploaded) / options.nodes
            after = made.processor_seconds()
            taken = {FLOOR: floor_took, **{part: after[part] - before.get(part, 0.0) for part in after}}
            rounds.append({"floor": bare, "ours": ours})
            processors.append({part: seconds / options.nodes for part, seconds in taken.items()})
            if peer:
                rounds[-1]["peer"] = peer.install(package, run=str(number), forks=forks)
            tell(f"round {number}: " + ", ".join(f"{name} {1000 * each:.1f} ms" for name, each in rounds[-1].items()))
    return rounds, processors


def _best_forks(peer: Peer, package: Path, tell: Callable[[str], None]) -> int:
    took = {forks: peer.install(package, run=f"forks-{forks}", forks=forks) for forks in FORKS}
    tell("Ansible: " + ", ".join(f"{forks} forks {1000 * each:.0f} ms" for forks, each in took.items()))
    return min(took, key=lambda forks: took[forks])


def measure_polls(folder: Path, options: Options, tell: Callable[[str], None]) -> list[Round]:
    """Requests per second, a round each."""
    tell(f"{options.many} nodes to poll for, {CONNECTIONS} connections")
    rounds = []
    with targets(folder, few=10, many=options.many, tell=tell) as found:
        for target in found.values():
            target.requests_per_second(1.0)
        for number in range(1, options.poll_rounds + 1):
            rounds.append({name: each.requests_per_second(options.poll_seconds) for name, each in found.items()})
            tell(f"round {number}: " + ", ".join(f"{name} {each:.0f}/s" for name, each in rounds[-1].items()))
    return rounds


def measure_log(tell: Callable[[str], None]) -> str:
    tell("the log")
    done = subprocess.run([sys.executable, "-m", "bench.log"], capture_output=True, text=True, check=True)
    return done.stdout


def median(rounds: list[Round], name: str, over: str = "") -> float:
    """Of a figure, or of its ratio to another one of the same round."""
    return statistics.median(each[name] / (each[over] if over else 1) for each in rounds)


def lines(rollouts: list[Round], polls: list[Round], options: Options) -> list[Line]:
    def took(name: str) -> str:
        return f"{1000 * median(rollouts, name):8.1f} ms a node"

    def rate(name: str) -> str:
        return f"{median(polls, name):8.0f} a second"

    made = [
        Line(what="floor: one loop, bare work on the disk", value=took("floor")),
        Line(
            what=f"a rollout to {options.nodes} nodes, request to `succeeded`",
            value=took("ours"),
            ratio=f"{median(rollouts, 'ours', 'floor'):.2f} x floor",
            aim="<= 2",
        ),
    ]
    if options.hosts:
        made.append(
            Line(
                what=f"ansible-core, {options.hosts} local hosts",
                value=took("peer"),
                ratio=f"{median(rollouts, 'peer', 'ours'):.1f} x ours",
                aim=">= 25",
            )
        )
    return [
        *made,
        Line(what="poll of a rollout to 10 nodes", value=rate("few")),
        Line(
            what=f"poll of a rollout to {options.many} nodes",
            value=rate("many"),
            ratio=f"{median(polls, 'many', 'few'):.2f} x that of 10",
            aim="flat",
        ),
        Line(
            what="bare view: a row, a serializer, the same token",
            value=rate("bare"),
            ratio=f"ours is {median(polls, 'many', 'bare'):.2f} x it",
            aim=">= 0.8",
        ),
    ]


def table_of(shown: list[Line]) -> Table:
    table = Table(title=f"{os.cpu_count()} cores, {platform.machine()}")
    for column in ("", "median", "ratio", "aim"):
        table.add_column(column, no_wrap=True)
    for line in shown:
        table.add_row(line.what, line.value, line.ratio, line.aim)
    return table


def processor_table(processors: list[Round]) -> Table:
    table = Table(title="processor time for one node of the rollout")
    for column in ("part", "median"):
        table.add_column(column, no_wrap=True)
    for part in dict.fromkeys((FLOOR, *PARTS.values())):
        taken = statistics.median(each.get(part, 0.0) for each in processors)
        table.add_row(part, f"{1000 * taken:6.1f} ms")
    return table


def run(options: Options, console: Console) -> list[Line]:
    def tell(message: str) -> None:
        console.print(message, style="dim")

    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(options.folder or temporary)
        rollouts, processors = measure_rollouts(folder / "rollouts", options, tell)
        polls = measure_polls(folder / "polls", options, tell)
    log = measure_log(tell) if options.log else ""
    shown = lines(rollouts, polls, options)
    console.print(table_of(shown))
    console.print(processor_table(processors))
    console.print(log)
    _keep({"rollouts": rollouts, "processors": processors, "polls": polls, "log": log.splitlines()})
    return shown


def _keep(result: object) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.json").write_text(json.dumps(result, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for field in fields(Options):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    given = parser.parse_args()
    # What is started is stopped on the way out, also when somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.disable(logging.INFO)
    with suppress(KeyboardInterrupt):
        run(Options(**vars(given)), Console(highlight=False, width=max(110, shutil.get_terminal_size().columns)))


if __name__ == "__main__":
    main()
