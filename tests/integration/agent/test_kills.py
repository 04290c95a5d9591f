"""An agent that is killed, or whose disk is full, at each step that changes a file or the server.

After each, no line names a missing file, and the server starts with the old or with the new module, while the agent is dead.
When the agent is back, the repeated command or its cancel ends with a true report, and nothing else is left.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rollout.agent.inspection.configuration import split_words
from rollout.agent.module_files.digests import Digests
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.messages import Action, Activation, Command, Phase, Reason, to_json
from tests.integration.agent.conftest import ROOT, SERVERS, Built, Site
from tests.integration.agent.test_adopt import so_of
from tests.integration.agent.test_persistence import Configured

Build = Callable[..., Built]


@dataclass
class Mortal:
    """Agents with an end, forked by one process."""

    process: "subprocess.Popen[str]"

    def run(self, site: Site, command: Command | None, last: int = 0, *, fills: bool = False) -> list[str]:
        """Return the steps of an agent that carries out the command, and its report if there is one: `= phase reason message`.

        At step `last` it is killed, or its disk is full if it `fills`; 0 is no step.
        """
        request = {"root": str(site.root), "last": last, "fills": fills, "environ": os.environ | site.environ}
        request["command"] = command and to_json(command)
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{json.dumps(request)}\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["status"] == (-signal.SIGKILL if last and not fills else 0), answer
        return list(answer["steps"])


@pytest.fixture(scope="module")
def mortal() -> Iterator[Mortal]:
    words = [sys.executable, "-m", "tests.integration.agent.mortal"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield Mortal(process)


#: A module as the server has it: name, version, arguments, the digest of its directory.
State = frozenset[tuple[str, int, tuple[str, ...], str]]


@dataclass
class Node:
    """A node before an operation, to which it can be brought back. `stash`: a copy of its files."""

    site: Site
    command: Command | None
    stash: Path

    def keep(self) -> None:
        self.site.server.kill()
        self.site.server.socket.unlink(missing_ok=True)
        shutil.copytree(self.site.root, self.stash, symlinks=True)
        self.site.server.start()

    def reset(self) -> None:
        self.site.server.kill()
        for each in self.site.root.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        shutil.copytree(self.stash, self.site.root, symlinks=True, dirs_exist_ok=True)
        self.site.server.start()

    def state(self) -> State:
        return frozenset(self._module(each) for each in self.site.server.call("MODULE LIST") if each["name"] != "lua")

    def _module(self, loaded: Any) -> tuple[str, int, tuple[str, ...], str]:
        folder = Path(loaded["path"]).parent
        is_ours = folder.is_relative_to(self.site.root / "modules")
        digest = Digests().content(folder) if is_ours else str(folder)
        return loaded["name"], loaded["ver"], tuple(loaded["args"]), digest

    def started(self) -> State:
        """Restart the server. Each file that a line names must be there."""
        files = [self.site.root / "modules/modfleet.conf", self.site.server.folder / "server.conf"]
        lines = [split_words(line) or () for file in files if file.exists() for line in file.read_text().splitlines()]
        missing = [each[1] for each in lines if each and each[0] == "loadmodule" and not Path(each[1]).is_file()]
        assert missing == []
        self.site.server.restart()
        return self.state()

    def left(self) -> list[str]:
        """What is on the disk. A mark names a process of the server, and says nothing about the next one."""
        return [each for each in self.site.left() if not each.endswith(".replaced")]

    def restart_agent(self) -> None:
        self.site.runner = Runner(settings_from(self.site.environ))
        self.site.runner.recover()
        self.site.runner.heartbeat(hello=True)


@pytest.fixture
def owner() -> str:
    return "include"


@pytest.fixture
def site(short_folder: Path, shelf: Any, binary: Path, owner: str) -> Iterator[Site]:
    modules = short_folder / "modules"
    server = Configured(short_folder / "s", binary=binary, aof="no", more=[f"include {modules}/*.conf"])
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": shelf.url,
        "MODFLEET_SERVER_URL": server.url,
        "MODFLEET_MODULES_DIR": str(modules),
        "MODFLEET_JOURNAL_DIR": str(short_folder / "journal"),
        "MODFLEET_PERSISTENCE": owner,
        "MODFLEET_SERVER_LOG": str(server.folder / "log"),
        "MODFLEET_SCRATCH": "off",
    }
    server.start()
    made = Site(short_folder, server, shelf, Runner(settings_from(environ)), environ)
    made.runner.recover()
    made.runner.heartbeat(hello=True)
    yield made
    server.kill()


# --- What an operation does, and what the node has before

SETTLE = 0.01


def install(site: Site, built: Build, repack: Build) -> Command:
    return site.command(built("greet"), settle_seconds=SETTLE)


def files(site: Site, built: Build, repack: Build) -> Command:
    return site.command(built("greet"), activation=Activation.FILES)


def upgrade(site: Site, built: Build, repack: Build) -> Command:
    site.install(built("greet"))
    return site.command(built("greet", 10001), settle_seconds=SETTLE)


def upgrade_in_main(site: Site, built: Build, repack: Build) -> Command:
    _rewritten(site, built("greet"))
    return site.command(built("greet", 10001), settle_seconds=SETTLE)


def rebuild(site: Site, built: Build, repack: Build) -> Command:
    site.install(built("greet"))
    return site.command(repack(built("greet")), settle_seconds=SETTLE)


def rebuild_files(site: Site, built: Build, repack: Build) -> Command:
    site.install(built("greet"))
    return site.command(repack(built("greet")), activation=Activation.FILES)


def arguments(site: Site, built: Build, repack: Build) -> Command:
    site.install(built("greet"))
    return site.command(built("greet"), args=("--name", "x"), settle_seconds=SETTLE)


def rollback(site: Site, built: Build, repack: Build) -> Command:
    site.install(built("greet"))
    site.install(built("greet", 10001))
    return site.command(built("greet"), undoes=10001)


def removal(site: Site, built: Build, repack: Build) -> Command:
    site.install(built("greet"))
    return site.command(built("greet"), Action.REMOVE)


def removal_in_main(site: Site, built: Build, repack: Build) -> Command:
    _rewritten(site, built("greet"))
    return site.command(built("greet"), Action.REMOVE)


def with_type(site: Site, built: Build, repack: Build) -> Command:
    return site.command(built("keeps", 1), has_types=True, settle_seconds=SETTLE)


def with_writes(site: Site, built: Build, repack: Build) -> Command:
    _write_aof(site)
    return site.command(built("writes", 1), settle_seconds=SETTLE)


def removal_with_writes(site: Site, built: Build, repack: Build) -> Command:
    _write_aof(site)
    site.install(built("writes", 1))
    site.server.call("WRITES.SET", "k", "v")
    return site.command(built("writes", 1), Action.REMOVE, even_if_used=True)


def adoption(site: Site, built: Build, repack: Build) -> Command:
    foreign = site.root / "foreign.so"
    foreign.write_bytes(so_of(built("greet")))
    foreign.chmod(0o755)
    assert isinstance(site.server, Configured)
    with site.server.file.open("a") as file:
        file.write(f"loadmodule {foreign}\n")
    return site.command(built("greet"), adopt=True)


def _rewritten(site: Site, built: Built) -> None:
    site.install(built)
    site.server.call("CONFIG", "REWRITE")
    site.runner.heartbeat(hello=False)


def _write_aof(site: Site) -> None:
    site.server.switch_aof_on()
    site.server.call("CONFIG", "REWRITE")


Operation = Callable[[Site, Build, Build], Command]
IN_INCLUDE: list[Operation] = [
    install, upgrade, rebuild, removal, files, upgrade_in_main, rebuild_files, arguments, rollback, removal_in_main, with_type,
    with_writes, removal_with_writes, adoption,
]  # fmt: skip
IN_MAIN: list[Operation] = [
    install, upgrade, rebuild, removal, rebuild_files, arguments, rollback, with_type, with_writes, removal_with_writes, adoption,
]  # fmt: skip
VALKEY, REDIS = SERVERS
#: These are sampled in each run. The rest, and all steps, are for `make test-full`.
OFTEN: list[tuple[Operation, str, Path]] = [
    (install, "include", VALKEY),
    (upgrade, "rewrite", REDIS),
    (rebuild, "include", REDIS),
    (removal, "rewrite", VALKEY),
    (adoption, "include", VALKEY),
]
SAMPLED = 5
CASES = [(each, SAMPLED, pytest.mark.slow) for each in OFTEN] + [
    ((does, owner, binary), None, pytest.mark.full)
    for owner, operations in (("include", IN_INCLUDE), ("rewrite", IN_MAIN))
    for does in operations
    for binary in SERVERS
]
cases = pytest.mark.parametrize(
    ("does", "owner", "binary", "most"),
    [
        pytest.param(does, owner, binary, most, marks=mark, id=f"{does.__name__}-{owner}-{binary.name}-{most or 'all'}")
        for (does, owner, binary), most, mark in CASES
    ],
)


@dataclass
class Trial:
    """A node, what it has before and after the operation, and the numbers of the steps to try."""

    node: Node
    old: State
    new: State
    left_old: list[str]
    left_new: list[str]
    steps: list[tuple[int, str]]

    def is_over(self, phase: Phase) -> None:
        """The node has what its last report says, and after the next start too. A module that cannot be unloaded stays."""
        is_old = phase is Phase.CANCELED
        want, left = (self.old, self.left_old) if is_old else (self.new, self.left_new)
        assert self.node.state() == want or "adopt" in str(self.node.command)
        assert self.node.started() == want
        self.node.restart_agent()
        assert self.node.left() == left


@pytest.fixture
def trial(
    site: Site, built: Build, repack: Build, mortal: Mortal, tmp_path: Path, does: Operation, most: int | None
) -> Trial:
    command = replace(does(site, built, repack), expires=site.command(built("greet")).expires + 3600)
    node = Node(site, command, tmp_path / "stash")
    node.keep()
    old, left_old = node.started(), node.left()
    steps = [each for each in mortal.run(site, command) if each[0] != "="]
    numbered = list(enumerate(steps, 1))
    chosen = numbered if most is None else sorted(random.sample(numbered, most))
    return Trial(node, old, node.started(), left_old, node.left(), chosen)


def at_each_step(trial: Trial, end_at: Callable[[int], None]) -> None:
    """Bring the node back and call `end_at` for each step. All failures are named at the end."""
    failures = []
    for number, words in trial.steps:
        trial.node.reset()
        try:
            end_at(number)
        except AssertionError as error:
            failures.append(f"step {number}, {words}: {error}")
    assert not failures, "\n".join(failures)


@cases
@pytest.mark.parametrize("is_canceled", [False, True], ids=["repeated", "canceled"])
@pytest.mark.timeout(1200)
def test_an_agent_that_is_killed_at_any_step(trial, mortal, does, is_canceled):
    node, site = trial.node, trial.node.site
    ends = {Phase.SUCCEEDED, Phase.SKIPPED}
    if is_canceled:
        ends |= {Phase.CANCELED, *([Phase.FAILED] if does in {with_type, with_writes} else [])}

    def end_at(step: int) -> None:
        mortal.run(site, node.command, step)
        if step % 2:  # else it runs until the agent is back
            assert node.started() in (trial.old, trial.new)
        node.restart_agent()
        end = site.runner.cancel if is_canceled else site.runner.execute
        report = end(node.command, report=lambda _: None)
        assert report.phase in ends, report
        trial.is_over(report.phase)

    at_each_step(trial, end_at)


@cases
@pytest.mark.timeout(1200)
def test_a_disk_that_is_full_from_any_step_on(trial, mortal, does):
    node, site = trial.node, trial.node.site

    def end_at(step: int) -> None:
        steps = mortal.run(site, node.command, step, fills=True)
        _, phase, reason, message = next(each for each in steps if each[0] == "=").split(" ", 3)
        started = node.started()
        if phase == Phase.FAILED:
            assert reason == Reason.DISK_FULL
            may_be_new = node.command.action is Action.REMOVE or "could not be" in message
            assert started == trial.old or (may_be_new and started == trial.new)
        else:
            assert (phase in (Phase.SUCCEEDED, Phase.SKIPPED), started) == (True, trial.new)
        node.restart_agent()
        report = site.runner.execute(replace(node.command, attempt=2), report=lambda _: None)
        assert report.phase in (Phase.SUCCEEDED, Phase.SKIPPED), report
        trial.is_over(report.phase)

    at_each_step(trial, end_at)
