"""One owner of the lines that a start loads: the include file, CONFIG REWRITE, or another hand.

The servers have a real configuration file. Each test is a line of the table in docs/adr/0015-one-owner-of-persistence.md.
"""

import resource
import shlex
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rollout.agent.doctor import run_doctor
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.messages import Action, Activation, ChangeKind, FindingStatus, Phase, Reason
from tests.integration.agent.conftest import SERVERS, Site, Valkey

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]


@dataclass
class Configured(Valkey):
    """A server with a configuration file, as a package installs it. `more`: lines at its end."""

    more: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "server.conf"

    def write(self) -> None:
        self.folder.mkdir(exist_ok=True)
        lines = [
            "port 0",
            f"unixsocket {self.socket}",
            f"dir {self.folder}",
            f"enable-module-command {self.modules}",
            'save ""',
        ]
        lines += [f"appendonly {self.aof}", f"logfile {self.folder}/log"]
        self.file.write_text("".join(f"{line}\n" for line in [*lines, *self.more]))

    def start(self) -> "Configured":
        if not self.file.exists():
            self.write()
        self.spawn([*self.prefix, self.binary, self.file, *self.options])
        return self

    def loads(self) -> list[str]:
        """The `loadmodule` lines of the main file, without the directory."""
        lines = self.file.read_text().splitlines()
        return ["/".join(each.split("/")[-3:]) for each in lines if each.startswith("loadmodule")]


@pytest.fixture
def owner() -> str:
    return "include"


@pytest.fixture
def aof() -> str:
    return "no"


@pytest.fixture
def site(short_folder: Path, shelf: Any, binary: Path, aof: str, owner: str) -> Iterator[Site]:
    modules = short_folder / "modules"
    more = [f"include {modules}/*.conf"] if owner == "include" else []
    server = Configured(short_folder / "s", binary=binary, aof=aof, more=more)
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": shelf.url,
        "MODFLEET_SERVER_URL": server.url,
        "MODFLEET_MODULES_DIR": str(modules),
        "MODFLEET_JOURNAL_DIR": str(short_folder / "journal"),
        "MODFLEET_PERSISTENCE": owner,
        "MODFLEET_SERVER_LOG": str(server.folder / "log"),
        "MODFLEET_BEAT_SECONDS": "1",
    }
    server.start()
    made = Site(short_folder, server, shelf, Runner(settings_from(environ)), environ)
    made.runner.recover()
    yield made
    server.kill()


def owned_by(owner: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("owner", [owner])


def beat(site: Site) -> Any:
    return site.runner.heartbeat(hello=False).facts


def changes(site: Site) -> list[ChangeKind]:
    return [each.kind for each in beat(site).configuration_changes]


def line(site: Site, built: Any, *args: str) -> str:
    return " ".join(["loadmodule", str(site.folder(built) / f"{built.name}.so"), *args])


def rewrite(site: Site) -> None:
    """As Sentinel does it at each failover."""
    site.server.call("CONFIG", "REWRITE")


# --- include


def test_a_server_starts_with_the_modules_of_the_include_file(site, built):
    site.install(built("greet"))
    assert site.server.loads() == []
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


def test_a_deleted_include_file_does_not_stop_a_start(site, built):
    site.install(built("greet"))
    (site.root / "modules/modfleet.conf").unlink()
    site.server.restart()
    assert site.server.loaded() == set()


@pytest.mark.parametrize("owner", ["include", "rewrite"])
def test_load_rewrite_restart_upgrade_rewrite_restart(site, built, owner):
    beat(site)
    for version in (10000, 10001, 10002):
        assert site.install(built("greet", version)).phase is Phase.SUCCEEDED
        rewrite(site)
        beat(site)
        site.server.restart()
        assert site.server.loaded() == {("greet", version)}
        assert site.server.loads() == [f"greet/{version}/greet.so"]
        assert owner == "rewrite" or site.include() == []
    assert site.remove(built("greet", 10002)).phase is Phase.SUCCEEDED
    site.server.restart()
    assert (site.server.loaded(), site.server.loads()) == (set(), [])


def test_an_agent_that_starts_resolves_what_was_rewritten_while_it_was_stopped(site, built):
    site.install(built("greet"))
    beat(site)
    rewrite(site)
    site.server.kill()
    site.restart_agent()
    beat(site)
    site.server.start()
    assert site.server.loaded() == {("greet", 10000)}


def test_double_lines_are_an_event_and_so_is_the_rewrite(site, built):
    site.install(built("greet"))
    assert changes(site) == []
    rewrite(site)
    assert changes(site) == [ChangeKind.OUTSIDE, ChangeKind.RESOLVED]
    outside, resolved = beat(site).configuration_changes
    assert line(site, built("greet")) in outside.message
    assert "modfleet.conf" in resolved.message
    site.restart_agent()
    assert [each.id for each in beat(site).configuration_changes] == [outside.id, resolved.id]


def test_our_own_rewrite_is_no_change_of_another_hand(site, built):
    beat(site)
    site.install(built("greet"))
    rewrite(site)
    beat(site)
    site.install(built("greet", 10001))
    assert changes(site) == [ChangeKind.OUTSIDE, ChangeKind.RESOLVED]


def test_a_person_who_adds_a_line_is_an_event(site, built):
    beat(site)
    with site.server.file.open("a") as file:
        file.write("loadmodule /opt/other.so a\n")
    (change,) = beat(site).configuration_changes
    assert (change.kind, "added `loadmodule /opt/other.so a`" in change.message) == (ChangeKind.OUTSIDE, True)
    site.server.write()
    assert "removed `loadmodule /opt/other.so a`" in beat(site).configuration_changes[-1].message


def test_a_rewrite_during_the_settling_is_resolved_too(site, built):
    site.install(built("greet"))

    def rewritten() -> None:
        rewrite(site)
        beat(site)
        site.server.crash()

    report = site.run_and(site.command(built("greet", 10001), settle_seconds=0.5), Phase.SETTLING, rewritten)
    assert report.reason is Reason.SERVER_CRASHED
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


@pytest.mark.parametrize("phase", ["loading", "probing", "settling"])
def test_an_agent_that_dies_during_an_upgrade_leaves_a_server_that_starts(site, built, phase):
    site.install(built("greet"))
    rewrite(site)
    beat(site)
    site.run_and_die(site.command(built("greet", 10001), settle_seconds=0.2), phase)
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


def test_an_upgrade_does_not_begin_if_the_line_cannot_be_written(site, built):
    site.install(built("greet"))
    rewrite(site)
    beat(site)
    site.server.call("ACL", "SETUSER", "default", "-config|rewrite")
    report = site.install(built("greet", 10001))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_FAILED)
    assert "+config|rewrite" in report.message
    assert site.server.loaded() == {("greet", 10000)}
    assert site.remove(built("greet")).reason is Reason.PERSISTENCE_FAILED
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


def test_a_line_of_another_file_stops_upgrade_and_removal(site, built):
    site.install(built("greet"))
    extra = site.root / "extra.conf"
    extra.write_text(f"{line(site, built('greet'))}\n")
    with site.server.file.open("a") as file:
        file.write(f"include {extra}\n")
    for report in (site.install(built("greet", 10001)), site.remove(built("greet"))):
        assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_CONFLICT)
        assert str(extra) in report.message
    assert site.folder(built("greet")).is_dir()
    beat(site)
    site.server.restart()
    assert (site.server.loaded(), site.include()) == ({("greet", 10000)}, [])


def test_files_that_a_line_names_are_not_deleted(site, built):
    site.install(built("greet"))
    site.install(built("greet", 10001))
    extra = site.root / "extra.conf"
    extra.write_text(f"{line(site, built('greet'))}\n")
    with site.server.file.open("a") as file:
        file.write(f"include {extra}\n")
    assert site.remove(built("greet")).reason is Reason.PERSISTENCE_CONFLICT
    assert site.folder(built("greet")).is_dir()


@pytest.mark.parametrize("is_old", [False, True])
def test_arguments_are_the_same_live_and_after_a_start(site, built, is_old):
    args = (
        "two words",
        "",
        'a "quote"',
        "it's",
        "back\\slash\\n",
        "\\x41",
        "tab\tend",
        "größer ∞",
        "plain",
        "# no comment",
    )
    sent = {"command_line_args": shlex.join(args)} | ({} if is_old else {"args": args})
    assert site.install(built("echoes", 1), **sent).phase is Phase.SUCCEEDED
    assert site.server.call("ECHOES.ARGS") == list(args)
    site.server.restart()
    assert site.server.call("ECHOES.ARGS") == list(args)
    assert site.install(built("echoes", 1), **sent).reason is Reason.ALREADY_INSTALLED


@pytest.mark.parametrize(("args", "said"), [(("two words",), "Two lines load"), (('a "quote',), "unbalanced quotes")])
def test_a_line_that_was_rewritten_without_its_quotes_is_not_trusted(site, built, args, said):
    """Both servers write arguments without quotes. With our line removed, a start would read other arguments."""
    site.install(built("echoes", 1), args=args)
    rewrite(site)
    assert changes(site) in ([], [ChangeKind.OUTSIDE])
    assert len(site.include()) == 1
    finding = next(each for each in run_doctor(site.runner.node.settings) if each.check == "loadmodule_owner")
    assert (finding.status, said in finding.message) == (FindingStatus.FAIL, True)


def test_a_line_of_the_command_line_is_known_if_the_server_shows_it(site, built):
    site.install(built("greet"), activation=Activation.FILES)
    site.server.more.append("set-proc-title no")
    site.server.write()
    site.server.options = ("--loadmodule", site.folder(built("greet")) / "greet.so")
    site.server.restart()
    beat(site)
    report = site.install(built("greet", 10001))
    assert (report.reason, "the command line" in report.message) == (Reason.PERSISTENCE_CONFLICT, True)
    assert site.remove(built("greet")).reason is Reason.PERSISTENCE_CONFLICT


# --- rewrite


@owned_by("rewrite")
def test_rewrite_writes_the_main_file_only(site, built):
    for version in (10000, 10001):
        assert site.install(built("greet", version)).phase is Phase.SUCCEEDED
        assert site.server.loads() == [f"greet/{version}/greet.so"]
        site.server.restart()
        assert site.server.loaded() == {("greet", version)}
    assert not (site.root / "modules/modfleet.conf").exists()
    assert changes(site) == []
    assert site.remove(built("greet", 10001)).phase is Phase.SUCCEEDED
    assert site.server.loads() == []


@owned_by("rewrite")
def test_a_new_module_that_crashes_the_server_does_not_come_back(site, built):
    report = site.run_and(site.command(built("greet"), settle_seconds=0.5), Phase.SETTLING, site.server.crash)
    assert report.reason is Reason.SERVER_CRASHED
    site.server.restart()
    assert (site.server.loaded(), site.left()) == (set(), [])


@owned_by("rewrite")
@pytest.mark.parametrize("phase", ["loading", "probing", "settling"])
def test_an_agent_that_dies_leaves_the_old_version(site, built, phase):
    site.install(built("greet"))
    site.run_and_die(site.command(built("greet", 10001), settle_seconds=0.2), phase)
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


@owned_by("rewrite")
@pytest.mark.parametrize(("point", "version"), [("rewrite 1", 10000), ("rewrite 2", 10001)])
def test_an_agent_that_dies_at_a_rewrite_leaves_one_version(site, built, point, version):
    site.install(built("greet"))
    command = site.command(built("greet", 10001), settle_seconds=0.2)
    site.run_and_die(command, point)
    site.server.restart()
    assert site.server.loaded() == {("greet", version)}
    site.restart_agent()
    assert site.run(command).phase is Phase.SUCCEEDED
    site.server.restart()
    assert site.server.loaded() == {("greet", 10001)}


@owned_by("rewrite")
def test_a_removal_that_dies_at_a_rewrite_is_finished(site, built):
    site.install(built("greet"))
    command = site.command(built("greet"), Action.REMOVE)
    site.run_and_die(command, "rewrite 2")
    site.server.restart()
    assert site.server.loaded() == set()
    site.restart_agent()
    assert (site.run(command).phase, site.left()) == (Phase.SUCCEEDED, [])


@owned_by("rewrite")
def test_a_removal_that_dies_before_the_rewrite_leaves_a_server_that_starts(site, built):
    site.install(built("greet"))
    command = site.command(built("greet"), Action.REMOVE)
    site.run_and_die(command, "rewrite 1")
    site.server.call("MODULE", "UNLOAD", "greet")
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}
    site.restart_agent()
    assert (site.run(command).phase, site.left()) == (Phase.SUCCEEDED, [])


@owned_by("rewrite")
def test_a_type_is_in_the_main_file_from_its_load_on(site, built):
    command = site.command(built("keeps", 1), has_types=True, settle_seconds=0.2)
    site.run_and_die(command, "probing")
    site.server.call("KEEPS.SET", "k", "7")
    site.server.call("SAVE")
    site.server.restart()
    assert site.server.call("KEEPS.GET", "k") == 7


@owned_by("rewrite")
def test_a_type_that_crashes_the_server_stays_in_the_main_file(site, built):
    """The server cannot unload it, and writes the line of each module that it has loaded."""

    command = site.command(built("keeps", 1), has_types=True, settle_seconds=0.5)
    report = site.run_and(command, Phase.SETTLING, site.server.crash)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_CRASHED)
    site.server.restart()
    assert site.server.loaded() == {("keeps", 1)}


@owned_by("rewrite")
def test_without_the_right_nothing_begins(site, built):
    site.server.call("ACL", "SETUSER", "default", "-config|rewrite")
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_FAILED)
    assert (site.server.loaded(), site.left()) == (set(), [])


@owned_by("rewrite")
def test_a_line_that_waits_for_a_restart_is_not_removed(site, built):
    """CONFIG REWRITE writes each setting as it is in the running server."""
    text = site.server.file.read_text()
    site.server.kill()
    site.server.file.write_text(text.replace("enable-module-command local", ""))
    site.server.start()
    site.server.file.write_text(text)
    assert site.install(built("greet")).reason is Reason.MODULE_COMMAND_DISABLED
    assert site.server.file.read_text() == text


@owned_by("rewrite")
@pytest.mark.parametrize("phase", [Phase.FETCHING, Phase.SETTLING])
def test_a_file_that_the_server_can_write_no_longer_keeps_the_old_version(site, built, phase):
    """Before the load, and when the line is due."""
    site.server.prefix = ("sh", "-c", 'trap "" XFSZ && exec "$@"', "sh")
    site.server.restart()
    site.install(built("greet"))

    def limit(size: int) -> None:
        hard = resource.prlimit(site.server.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(site.server.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    command = site.command(built("greet", 10001), settle_seconds=0.1)
    report = site.run_and(command, phase, lambda: limit(100))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_FAILED)
    assert "could not be restored" not in report.message
    assert site.server.loaded() == {("greet", 10000)}
    assert site.server.loads() == ["greet/10000/greet.so"]
    assert not site.folder(built("greet", 10001)).exists()
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}
    assert site.run(replace(command, attempt=2)).phase is Phase.SUCCEEDED


@owned_by("rewrite")
def test_a_file_that_the_server_cannot_write_stops_the_operation(site, built):
    site.server.file.unlink()
    site.server.file.mkdir()  # nobody can replace a directory by a file, not even root
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_FAILED)


@owned_by("rewrite")
@pytest.mark.parametrize("args", ['"a b"', "''", "'q\"x'"])
def test_arguments_that_need_quotes_are_refused_before_the_load(site, built, args):
    report = site.install(built("greet"), command_line_args=args)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_FAILED)
    assert site.server.loaded() == set()


@owned_by("rewrite")
@pytest.mark.parametrize("dies", [False, True])
def test_a_node_that_changes_its_owner_keeps_its_modules(site, built, dies):
    """From `include`: the lines are in our file until the next change."""
    include = Runner(settings_from(site.environ | {"MODFLEET_PERSISTENCE": "include"}))
    include.recover()
    site.server.more.append(f"include {site.root}/modules/*.conf")
    site.server.kill()
    site.server.write()
    site.server.start()
    include.execute(site.command(built("greet")), report=lambda _: None)
    assert len(site.include()) == 1
    if dies:
        site.run_and_die(site.command(built("greet", 10001)), "rewrite 1")
    site.restart_agent()
    assert site.install(built("greet", 10001)).phase is Phase.SUCCEEDED
    assert (site.include(), site.server.loads()) == ([], ["greet/10001/greet.so"])
    site.server.restart()
    assert site.server.loaded() == {("greet", 10001)}


# --- external


@owned_by("external")
def test_external_waits_for_the_line_and_says_which(site, built):
    run_id = site.server.call("INFO", "server")["run_id"]
    report = site.install(built("greet"), deadline_seconds=0.5)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXTERNAL_CONFIGURATION)
    assert f"`{line(site, built('greet'))}`" in report.message
    assert line(site, built("greet")) in beat(site).to_do
    assert site.server.loaded() == set()
    assert site.folder(built("greet")).is_dir()
    assert not (site.root / "modules/modfleet.conf").exists()
    assert site.server.call("INFO", "server")["run_id"] == run_id


@owned_by("external")
@pytest.mark.parametrize("allowed", ["local", "no"])
def test_external_succeeds_when_the_server_runs_it(site, built, allowed):
    site.server.modules = allowed
    site.server.kill()
    site.server.write()
    site.server.start()

    def add() -> None:
        site.server.more.append(line(site, built("greet")))
        site.server.kill()
        site.server.write()
        site.server.start()

    command = site.command(built("greet"), settle_seconds=0.2)
    assert site.run_and(command, Phase.LOADING, add).phase is Phase.SUCCEEDED
    assert beat(site).to_do == ""
    assert site.install(built("greet")).reason is Reason.ALREADY_INSTALLED


@owned_by("external")
def test_external_removal_deletes_the_files_only_without_the_line(site, built):
    site.install(built("greet"), activation=Activation.FILES)
    site.server.more.append(line(site, built("greet")))
    site.server.kill()
    site.server.write()
    site.server.start()
    report = site.remove(built("greet"), deadline_seconds=0.5)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXTERNAL_CONFIGURATION)
    assert line(site, built("greet")) in report.message
    assert site.folder(built("greet")).is_dir()
    site.server.more.clear()
    site.server.kill()
    site.server.write()
    site.server.start()
    assert site.remove(built("greet")).phase is Phase.SUCCEEDED
    assert site.left() == []


@owned_by("external")
def test_external_removal_deletes_nothing_while_the_lines_are_unknown(site, built):
    site.install(built("greet"), activation=Activation.FILES)
    site.server.file.unlink()
    report = site.remove(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXTERNAL_CONFIGURATION)
    assert str(site.server.file) in report.message
    assert site.folder(built("greet")).is_dir()
    site.server.write()
    assert site.remove(built("greet")).phase is Phase.SUCCEEDED


@owned_by("external")
def test_a_canceled_operation_keeps_files_that_a_line_names(site, built):
    def add_and_cancel() -> None:
        with site.server.file.open("a") as file:
            file.write(f"{line(site, built('greet'))}\n")
        site.runner.give_up(command)

    command = site.command(built("greet"))
    assert site.run_and(command, Phase.LOADING, add_and_cancel).phase is Phase.CANCELED
    assert site.folder(built("greet")).is_dir()
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


@owned_by("external")
def test_a_canceled_operation_without_a_line_leaves_nothing(site, built):
    command = site.command(built("greet"))
    report = site.run_and(command, Phase.LOADING, lambda: site.runner.give_up(command))
    assert (report.phase, site.left()) == (Phase.CANCELED, [])
    assert beat(site).to_do == ""


# --- The files


@pytest.mark.parametrize("owner", ["include", "rewrite"])
def test_a_start_finds_the_files_while_they_are_replaced(site, built, repack, owner):
    site.install(built("greet"))
    rewrite(site)
    beat(site)
    other = repack(built("greet"))
    for phase in ("installing", "loading", "probing"):
        site.run_and_die(site.command(other, settle_seconds=0.2), phase)
        site.server.process.send_signal(signal.SIGKILL)
        site.server.process.wait()
        site.server.start()
        assert site.server.loaded() == {("greet", 10000)}


@owned_by("include")
def test_the_line_of_a_file_that_was_deleted_leaves(site, built):
    """With it the server would not start, and the node would get nothing that could restore the file."""
    site.install(built("greet"))
    shutil.rmtree(site.root / "modules" / "greet" / "10000")
    assert changes(site) == [ChangeKind.RESOLVED]
    site.server.restart()
    assert site.server.loaded() == set()
