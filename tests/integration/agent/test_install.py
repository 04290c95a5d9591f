"""Installing a module: what the node looks like afterwards, and after each thing that can go wrong."""

import errno
import io
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rollout.agent.module_files import fetch
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.messages import Action, Activation, Phase, Reason, content_digest
from tests.waiting import wait_for

FILES = {"activation": Activation.FILES}
#: The module reaches the live server without a trial in a scratch server.
UNTRIED = pytest.mark.parametrize("scratch", ["off"])


def test_it_works(site, built):
    greet = built("greet")
    report = site.install(greet)
    assert (report.phase, report.reason, report.message) == (Phase.SUCCEEDED, None, "")
    assert site.server.call("GREET.HELLO", "Ada") == "Hello, Ada, from greet 1.0.0"
    assert site.include() == [f"loadmodule {site.folder(greet)}/greet.so"]
    assert site.left() == ["greet", "greet/10000", "greet/10000/greet.so", "greet/10000/module.json"]
    assert [phase.value for phase in site.phases()] == [
        "fetching", "verifying", "installing", "loading", "probing", "succeeded"
    ]  # fmt: skip
    (module,) = report.inventory.modules
    assert module.loaded
    assert module.content_sha256 == greet.package.content_sha256


def test_a_restarted_server_still_has_it(site, built):
    site.install(built("greet"))
    site.server.restart()
    assert site.server.call("GREET.HELLO") == "Hello, world, from greet 1.0.0"


def test_again_is_skipped(site, built):
    site.install(built("greet"))
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.SKIPPED, Reason.ALREADY_INSTALLED)
    assert len(site.shelf.asked) == 1


def test_files_are_put_in_place_and_not_loaded(site, built):
    report = site.install(built("greet"), **FILES)
    assert report.phase is Phase.SUCCEEDED
    assert not report.inventory.modules[0].loaded
    assert site.include() == []
    assert site.install(built("greet"), **FILES).reason is Reason.ALREADY_INSTALLED


def test_files_in_place_are_only_loaded(site, built):
    site.install(built("greet"), **FILES)
    report = site.install(built("greet"))
    assert report.phase is Phase.SUCCEEDED
    assert site.server.loaded() == {("greet", 10000)}
    assert len(site.shelf.asked) == 1


def test_an_upgrade_replaces_what_is_loaded(site, built):
    site.install(built("greet"))
    assert site.install(built("greet", 10001)).phase is Phase.SUCCEEDED
    assert site.server.call("GREET.HELLO") == "Hello, world, from greet 1.0.1"
    assert site.include() == [f"loadmodule {site.folder(built('greet', 10001))}/greet.so"]


def test_files_below_a_loaded_module_are_replaced_by_rename(site, built, repack):
    greet = built("greet")
    site.install(greet)
    inode = (site.folder(greet) / "greet.so").stat().st_ino
    report = site.install(repack(greet), **FILES)
    assert report.phase is Phase.SUCCEEDED
    assert (site.folder(greet) / "greet.so").stat().st_ino != inode
    assert site.server.call("GREET.HELLO") == "Hello, world, from greet 1.0.0"
    assert not report.inventory.modules[0].loaded, "what runs is not what lies on disk"
    assert site.install(repack(greet)).phase is Phase.SUCCEEDED
    assert site.install(repack(greet)).phase is Phase.SKIPPED


def test_a_restart_loads_replaced_files(site, built, repack):
    greet = built("greet")
    site.install(greet)
    site.install(repack(greet), **FILES)
    site.server.restart()
    assert site.install(repack(greet)).reason is Reason.ALREADY_INSTALLED


def test_files_spoiled_on_disk_are_fetched_again(site, built):
    greet = built("greet")
    site.install(greet, **FILES)
    (site.folder(greet) / "module.json").write_text("{}")
    assert site.install(greet).phase is Phase.SUCCEEDED
    assert len(site.shelf.asked) == 2


def spoiled_byte(blob):
    return blob[:100] + bytes([blob[100] ^ 1]) + blob[101:]


@pytest.mark.parametrize(
    "spoil", [spoiled_byte, lambda blob: blob[:-7], lambda blob: blob + b"more", lambda blob: blob[:0]], ids=range(4)
)
def test_a_corrupted_package_is_refused(site, built, spoil):
    greet = built("greet")
    site.shelf.content[f"/{greet.package.package_sha256}"] = spoil(greet.blob)
    report = site.install(greet)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.CHECKSUM_MISMATCH)
    assert site.left() == []


@pytest.mark.parametrize("status", [404, 410])
def test_a_package_that_the_storage_has_lost_is_said_so(site, built, status):
    site.shelf.status = status
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.FETCH_FAILED)
    assert f"answered {status}" in report.message
    assert "upload the same package again" in report.message
    assert site.left() == []


@pytest.fixture
def impatient(monkeypatch):
    """A download that fails is not tried again."""
    monkeypatch.setattr(fetch, "RESTART_SECONDS", 0)


def test_a_truncated_module_never_reaches_the_server(site, built, impatient):
    greet = built("greet")
    site.install(greet, **FILES)
    module = site.folder(greet) / "greet.so"
    os.truncate(module, 4096)
    site.shelf.status = 503
    report = site.install(greet)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.FETCH_FAILED)
    assert site.server.answers()


def test_a_module_truncated_just_before_the_load_never_reaches_the_server(site, built):
    greet = built("greet")
    command = site.command(greet)

    def truncate(report):
        if report.phase is Phase.LOADING:
            os.truncate(site.folder(greet) / "greet.so", 4096)

    report = site.runner.execute(command, report=truncate)
    assert report.reason is Reason.CHECKSUM_MISMATCH
    assert site.server.answers()
    assert site.left() == []


def test_a_full_disk_is_told(site, built, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "greet.so")

    monkeypatch.setattr("rollout.agent.operations.install.unpack", full)
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.DISK_FULL)
    assert site.left() == []


def test_a_member_that_differs_is_refused(site, built):
    greet = built("greet")
    members = (replace(greet.package.members[0], sha256="0" * 64), *greet.package.members[1:])
    package = replace(greet.package, members=members, content_sha256=content_digest(members))
    report = site.install(replace(greet, package=package))
    assert report.reason is Reason.CHECKSUM_MISMATCH
    assert "greet.so" in report.message
    assert site.left() == []


@pytest.mark.parametrize("path", ["../evil.so", "/evil.so", "a/../../evil.so", ".", "a//b"])
def test_a_path_out_of_the_directory_is_refused(site, built, path):
    greet = built("greet")
    members = (*greet.package.members, replace(greet.package.members[0], path=path))
    package = replace(greet.package, members=members, content_sha256=content_digest(members))
    assert site.install(replace(greet, package=package)).reason is Reason.CHECKSUM_MISMATCH
    assert site.left() == []


def test_members_beside_the_manifest_are_refused(site, built):
    members = built("greet").package.members[:1]
    package = replace(built("greet").package, members=members, content_sha256=content_digest(members))
    report = site.install(replace(built("greet"), package=package))
    assert report.reason is Reason.CHECKSUM_MISMATCH
    assert "module.json" in report.message


@pytest.mark.parametrize("status", [302, 403, 404, 410, 500, 503])
def test_a_refused_download_says_so(site, built, status, impatient):
    site.shelf.status = status
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.FETCH_FAILED)
    assert str(status) in report.message
    assert built("greet").package.package_sha256 not in report.message, "the URL is a credential"
    assert site.left() == []


def test_a_download_is_tried_again_while_the_control_plane_restarts(site, built):
    site.shelf.status = 503
    with ThreadPoolExecutor(1) as pool:
        report = pool.submit(site.install, built("greet"))
        wait_for(lambda: len(site.shelf.asked) > 1)
        site.shelf.status = 200
        assert report.result().phase is Phase.SUCCEEDED


def test_a_dead_control_plane_is_a_failed_fetch(site, built, impatient):
    command = site.command(built("greet"))
    gone = replace(command, package=replace(command.package, url="http://127.0.0.1:1/x"))
    assert site.run(gone).reason is Reason.FETCH_FAILED


def test_a_slow_download_ends_at_the_deadline(site, built):
    site.shelf.gate.clear()
    report = site.install(built("greet"), deadline_seconds=0.3)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.NODE_DEADLINE)
    assert site.left() == []


@UNTRIED
def test_a_refused_load_leaves_the_node_as_it_was(site, built):
    report = site.install(built("refuses"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.LOAD_FAILED)
    assert "server's log" in report.message
    assert (site.left(), site.include(), site.server.loaded()) == ([], [], set())


@UNTRIED
def test_a_refused_upgrade_keeps_the_former_version(site, built, repack):
    greet = built("greet")
    site.install(greet)
    report = site.install(repack(greet, version=10001, module=built("refuses")))
    assert report.reason is Reason.LOAD_FAILED
    assert site.server.call("GREET.HELLO") == "Hello, world, from greet 1.0.0"
    assert site.include() == [f"loadmodule {site.folder(greet)}/greet.so"]
    assert [each.version for each in report.inventory.modules] == [10000]


@UNTRIED
def test_a_refused_rebuild_keeps_the_former_content(site, built, repack):
    greet = built("greet")
    site.install(greet)
    bad = repack(greet, module=built("refuses"))
    assert site.install(bad).reason is Reason.LOAD_FAILED
    assert site.server.loaded() == {("greet", 10000)}
    assert site.install(greet).reason is Reason.ALREADY_INSTALLED
    assert site.left() == ["greet", "greet/10000", "greet/10000/greet.so", "greet/10000/module.json"]


@UNTRIED
def test_files_that_were_there_stay_after_a_refused_load(site, built):
    site.install(built("refuses"), **FILES)
    assert site.install(built("refuses")).reason is Reason.LOAD_FAILED
    assert site.folder(built("refuses")).is_dir()


def test_a_module_under_another_name_fails_its_probe(site, built):
    wrong = replace(built("greet"), name="other")
    report = site.install(wrong)
    assert report.reason is Reason.PROBE_FAILED
    assert (site.left(), site.server.loaded()) == ([], set())


def test_a_module_of_another_version_fails_its_probe(site, built):
    report = site.install(replace(built("greet"), version=10001))
    assert report.reason is Reason.PROBE_FAILED
    assert "greet 10000" in report.message
    assert (site.left(), site.server.loaded()) == ([], set())


def test_a_missing_command_fails_the_probe(site, built):
    site.install(built("greet"))
    report = site.install(replace(built("greet", 10001), commands=("greet.hello", "greet.bye")))
    assert report.reason is Reason.PROBE_FAILED
    assert "greet.bye" in report.message
    assert site.server.loaded() == {("greet", 10000)}


def test_an_upgrade_that_cannot_unload_changes_nothing(site, built):
    site.install(built("types", 1))
    report = site.install(built("types", 2))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXPORTS_DATA_TYPES)
    assert "restart" in report.message
    assert site.server.loaded() == {("types", 1)}
    assert [each.version for each in report.inventory.modules] == [1]


def test_what_is_ours_is_no_other_module(site, built):
    site.install(built("greet"))
    assert "greet" not in site.runner.heartbeat(hello=False).profile.other_modules


def test_a_foreign_module_is_not_touched(site, built, tmp_path):
    foreign = tmp_path / "greet.so"
    with zipfile.ZipFile(io.BytesIO(built("greet").blob)) as archive:
        foreign.write_bytes(archive.read("greet.so"))
    foreign.chmod(0o755)
    site.server.call("MODULE", "LOAD", str(foreign))
    report = site.install(built("greet", 10001))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.MODULE_NOT_OURS)
    assert "greet" in site.runner.heartbeat(hello=False).profile.other_modules
    assert (site.left(), site.shelf.asked, site.server.loaded()) == ([], [], {("greet", 10000)})


@pytest.mark.parametrize("is_newer", [False, True])
@pytest.mark.parametrize("action", Action)
def test_a_module_of_the_server_itself_is_not_touched(site, built, action, is_newer):
    """Valkey has `lua` built in."""
    before = site.server.call("MODULE LIST")
    (version,) = [each["ver"] for each in before if each["name"] == "lua"]
    report = site.run(site.command(replace(built("greet"), name="lua", version=version + is_newer), action))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.MODULE_NOT_OURS)
    assert (site.left(), site.include(), site.shelf.asked) == ([], [], [])
    assert site.server.call("MODULE LIST") == before
    assert "cmdstat_module|unload" not in site.server.call("INFO", "commandstats")


def test_a_disabled_module_command_says_how_to_enable_it(site, built):
    site.server.modules = "no"
    site.server.restart()
    report = site.install(built("greet"))
    assert report.reason is Reason.MODULE_COMMAND_DISABLED
    assert "enable-module-command local" in report.message
    assert site.left() == []


def test_a_server_that_is_away_is_told(site, built):
    site.server.kill()
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_UNREACHABLE)
    assert report.message.endswith("refused.") or report.message.endswith("directory.")
    assert (site.left(), site.shelf.asked) == ([], [])
    assert site.install(built("greet"), **FILES).phase is Phase.SUCCEEDED


@UNTRIED
def test_a_module_that_kills_the_server_leaves_no_files(site, built, monkeypatch):
    monkeypatch.setattr("rollout.agent.operations.undo.COMES_BACK_SECONDS", 0.1)
    report = site.install(built("crashes"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_CRASHED)
    assert site.left() == []
    site.server.restart()


@UNTRIED
def test_the_former_version_is_back_when_the_server_is(site, built, repack):
    greet = built("greet")
    site.install(greet)
    supervisor = threading.Thread(target=lambda: (site.server.process.wait(), site.server.start()))
    supervisor.start()
    report = site.install(repack(greet, version=10001, module=built("crashes")))
    supervisor.join()
    assert report.reason is Reason.SERVER_CRASHED
    assert site.server.call("GREET.HELLO") == "Hello, world, from greet 1.0.0"
    assert [each.version for each in report.inventory.modules] == [10000]


def test_arguments_are_kept_in_the_include_file(site, built):
    report = site.install(built("greet"), command_line_args="--name 'two words'")
    assert report.phase is Phase.SUCCEEDED
    assert site.include()[0].endswith('greet.so --name "two words"')
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


def test_arguments_that_cannot_be_split_are_told(site, built):
    report = site.install(built("greet"), command_line_args="'open")
    assert report.reason is Reason.LOAD_FAILED
    assert site.left() == []


def test_an_agent_that_only_observes_refuses_every_command(site, built):
    greet = built("greet")
    observer = Runner(settings_from({**site.environ, "MODFLEET_ACCESS": "observe"}))
    for command in (
        site.command(greet),
        site.command(greet, activation=Activation.FILES),
        site.command(greet, Action.REMOVE),
    ):
        final = observer.execute(command, report=lambda _: None)
        assert final
        assert (final.phase, final.reason) == (Phase.FAILED, Reason.OBSERVE_ONLY)
    assert observer.heartbeat(hello=True).capabilities == ()
    assert site.left() == []
    assert site.server.loaded() == set()
