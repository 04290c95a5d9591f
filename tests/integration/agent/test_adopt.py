"""A module that Modfleet did not install: its digest, its adoption, and what follows. On real servers of both products."""

import io
import os
import shutil
import threading
import zipfile
from dataclasses import replace

import pytest

from artifacts_app.events import ArtifactUploaded, artifact_stream
from eventstore import Append, append
from rollout.agent.doctor import run_doctor
from rollout.agent.module_files import main_file
from rollout.agent.node.examinations import Examinations
from rollout.agent.node.node import Node
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.delivery import ingestion
from rollout.delivery.commands import commands_of
from rollout.messages import Action, Phase, Reason, to_json
from rollout.models import NodeModule, Operation
from rollout.process.advance import advance
from tests.integration.agent.conftest import SERVERS, Site
from tests.integration.agent.test_persistence import Configured
from tests.recorded_fleet import know, operation, phases
from tests.waiting import wait_for

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])


@pytest.fixture
def owner():
    return "include"


@pytest.fixture
def greet(built):
    return built("greet")


@pytest.fixture
def site(request, short_folder, shelf, binary, owner):
    """A server whose main file loads greet from a path that is not Modfleet's."""
    greet = request.getfixturevalue("greet")
    modules = short_folder / "modules"
    foreign = short_folder / "foreign.so"
    foreign.write_bytes(so_of(greet))
    foreign.chmod(0o755)
    more = getattr(request, "param", [f"loadmodule {foreign}"])
    more = [each.replace("FOREIGN", str(foreign)) for each in more]
    server = Configured(short_folder / "s", binary=binary, aof="no", more=[*more, f"include {modules}/*.conf"])
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": shelf.url,
        "MODFLEET_SERVER_URL": server.url,
        "MODFLEET_MODULES_DIR": str(modules),
        "MODFLEET_JOURNAL_DIR": str(short_folder / "journal"),
        "MODFLEET_PERSISTENCE": owner,
        "MODFLEET_BEAT_SECONDS": "1",
    }
    modules.mkdir()
    server.start()
    made = Site(short_folder, server, shelf, Runner(settings_from(environ)), environ)
    made.runner.recover()
    yield made
    server.kill()


def so_of(built):
    with zipfile.ZipFile(io.BytesIO(built.blob)) as archive:
        return archive.read(built.package.module_file)


def digest_of(built):
    return next(each.sha256 for each in built.package.members if each.path == built.package.module_file)


def shown(site):
    return next(each for each in site.runner.heartbeat(hello=False).facts.modules if each.name == "greet")


def known(site):
    """The module, when the agent has read its file."""
    wait_for(lambda: shown(site).sha256 or "not read" not in shown(site).obstacle)
    return shown(site)


def adopt(site, built, **changes):
    return site.install(built, adopt=True, **changes)


def path_of(site, built):
    return f"{site.folder(built)}/{built.package.module_file}"


def loaded_from(site):
    def path(each):
        return each["path"]

    return [path(each) for each in site.server.call("MODULE LIST") if each["name"] == "greet"]


# --- What the heartbeat says


def test_the_digest_of_a_foreign_module(site, greet):
    module = known(site)
    assert (module.ours, module.sha256, module.obstacle) == (False, digest_of(greet), "")
    assert module.line.startswith(f"{site.server.folder}/server.conf:")


def test_a_file_that_was_replaced_since_the_load_is_not_known(site, greet):
    foreign = site.root / "foreign.so"
    copy = site.root / "copy"
    shutil.copy(foreign, copy)
    copy.replace(foreign)
    module = known(site)
    assert (module.sha256, "is not the file that the server has loaded" in module.obstacle) == ("", True)
    report = adopt(site, greet)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.MODULE_NOT_OURS)
    assert site.left() == []


def test_a_file_that_changes_is_read_again(site, greet):
    known(site)
    with (site.root / "foreign.so").open("ab") as file:
        file.write(b"more")
    wait_for(lambda: known(site).sha256 != digest_of(greet))
    report = adopt(site, greet)
    assert (report.reason, "is not the artifact's file" in report.message) == (Reason.MODULE_NOT_OURS, True)


# --- Removal of a foreign module


def test_a_removal_of_a_foreign_module_is_never_a_success(site, greet):
    report = site.remove(greet)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.MODULE_NOT_OURS)
    assert loaded_from(site) == [str(site.root / "foreign.so")]


# --- Adoption


def run_id(site):
    return site.server.call("INFO", "server")["run_id"]


def test_it_works(site, greet):
    before, text = run_id(site), (site.server.folder / "server.conf").read_text()
    report = adopt(site, greet)
    foreign = str(site.root / "foreign.so")
    assert (report.phase, f"The server runs it from {foreign} until its next start" in report.message) == (
        Phase.SUCCEEDED,
        True,
    )
    assert (run_id(site), loaded_from(site)) == (before, [foreign])
    assert (site.server.folder / "server.conf").read_text() == text.replace(foreign, path_of(site, greet))
    (module,) = report.inventory.modules
    assert (module.loaded, module.content_sha256) == (True, greet.package.content_sha256)
    assert (shown(site).ours, shown(site).adopted_from) == (True, foreign)
    assert site.runner.heartbeat(hello=False).facts.configuration_changes == ()


def test_the_next_start_loads_it_from_the_store(site, greet):
    adopt(site, greet)
    (site.root / "foreign.so").unlink()
    site.server.restart()
    assert loaded_from(site) == [path_of(site, greet)]
    assert (shown(site).ours, shown(site).adopted_from) == (True, "")


def test_it_is_adopted_once(site, greet):
    adopt(site, greet)
    site.restart_agent()
    report = adopt(site, greet)
    assert (report.phase, report.reason) == (Phase.SKIPPED, Reason.ALREADY_INSTALLED)


@pytest.mark.parametrize("owner", ["include", "rewrite"])
@pytest.mark.parametrize("is_rewritten", [False, True])
def test_a_later_upgrade_swaps_it(site, greet, built, is_rewritten):
    adopt(site, greet)
    if is_rewritten:
        site.server.call("CONFIG", "REWRITE")
    newer = built("greet", 10001)
    report = site.install(newer)
    assert (report.phase, report.swap_seconds is not None) == (Phase.SUCCEEDED, True)
    assert loaded_from(site) == [path_of(site, newer)]
    site.server.restart()
    assert loaded_from(site) == [path_of(site, newer)]
    assert str(site.root / "foreign.so") not in (site.server.folder / "server.conf").read_text()


def test_a_failed_upgrade_restores_it(site, greet, built, repack):
    adopt(site, greet)
    bad = replace(built("greet", 10001), commands=("greet.nothing",))
    assert site.install(bad).reason is Reason.PROBE_FAILED
    assert loaded_from(site) == [path_of(site, greet)]
    site.server.restart()
    assert loaded_from(site) == [path_of(site, greet)]


def test_a_removal_of_an_adopted_module_unloads_it(site, greet):
    adopt(site, greet)
    assert site.remove(greet).phase is Phase.SUCCEEDED
    assert (loaded_from(site), site.left()) == ([], [])
    site.server.restart()
    assert loaded_from(site) == []


def test_a_rewrite_before_the_next_start_leaves_one_line(site, greet):
    adopt(site, greet)
    site.server.call("CONFIG", "REWRITE")
    site.runner.heartbeat(hello=False)
    site.server.restart()
    assert loaded_from(site) == [str(site.root / "foreign.so")]
    assert shown(site).ours is False


@pytest.mark.parametrize("owner", ["include", "rewrite"])
def test_an_agent_that_dies_at_the_line_is_repeated(site, greet, monkeypatch):
    command = site.command(greet, adopt=True)
    monkeypatch.setattr("rollout.agent.server.adoptions.Adoptions.add", lambda *_: os._exit(0))
    if (child := os.fork()) == 0:
        site.run(command)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    monkeypatch.undo()
    site.restart_agent()
    report = site.run(command)
    assert (report.phase, report.reason) == (Phase.SUCCEEDED, None)
    site.server.restart()
    assert loaded_from(site) == [path_of(site, greet)]


@pytest.mark.parametrize("site", [[]], indirect=True)
def test_a_module_without_a_line_gets_one(site, greet):
    site.server.call("MODULE", "LOAD", str(site.root / "foreign.so"))
    assert (known(site).line, known(site).obstacle) == ("", "")
    assert adopt(site, greet).phase is Phase.SUCCEEDED
    assert site.include() == [f"loadmodule {path_of(site, greet)}"]
    site.server.restart()
    assert loaded_from(site) == [path_of(site, greet)]


@pytest.mark.parametrize("site", [[]], indirect=True)
def test_a_rewrite_beside_our_new_line_is_resolved(site, greet):
    """As Sentinel does it: the main file gets the foreign path, so our line goes, and the server starts."""
    site.server.call("MODULE", "LOAD", str(site.root / "foreign.so"))
    adopt(site, greet)
    site.server.call("CONFIG", "REWRITE")
    site.runner.heartbeat(hello=False)
    assert site.include() == []
    site.server.restart()
    assert loaded_from(site) == [str(site.root / "foreign.so")]


@pytest.mark.parametrize("site", [["loadmodule FOREIGN a b"]], indirect=True)
def test_its_arguments_stay(site, greet):
    assert adopt(site, greet).phase is Phase.SUCCEEDED
    site.server.restart()
    (found,) = [each for each in site.server.call("MODULE LIST") if each["name"] == "greet"]
    assert (found["path"], found["args"]) == (path_of(site, greet), ["a", "b"])


# --- Refusals


def refused(site, built):
    report = adopt(site, built)
    assert (report.phase, site.left(), loaded_from(site)) == (Phase.FAILED, [], [str(site.root / "foreign.so")])
    return report


@pytest.mark.parametrize("site", [[]], indirect=True)
@pytest.mark.parametrize("owner", ["rewrite"])
def test_only_the_server_writes_the_lines(site, greet):
    site.server.call("MODULE", "LOAD", str(site.root / "foreign.so"))
    assert known(site).obstacle.startswith("No line loads it")
    assert refused(site, greet).reason is Reason.PERSISTENCE_CONFLICT


def test_a_line_in_another_file(site, greet):
    main, other = site.server.folder / "server.conf", site.server.folder / "other.conf"
    line = f"loadmodule {site.root / 'foreign.so'}"
    other.write_text(f"{line}\n")
    main.write_text(main.read_text().replace(line, f"include {other}"))
    assert known(site).obstacle.startswith(f"The line is in {other}.")
    assert refused(site, greet).reason is Reason.PERSISTENCE_CONFLICT


def test_a_line_that_changes_at_the_same_time(site, greet, monkeypatch):
    main = site.server.folder / "server.conf"
    change_lines = main_file.change_lines

    def change_first(*words):
        main.write_text(f"# new\n{main.read_text()}")
        change_lines(*words)

    monkeypatch.setattr("rollout.agent.node.persistence.change_lines", change_first)
    report = refused(site, greet)
    assert (report.reason, "was changed at the same time" in report.message) == (Reason.PERSISTENCE_CONFLICT, True)


def test_the_server_writes_its_file_at_the_same_time(site, greet, monkeypatch):
    """A failover by Sentinel calls CONFIG REWRITE. What it wrote is not lost."""
    chown = os.fchown

    def rewrite_first(*words):
        site.server.call("CONFIG", "SET", "maxclients", "123")
        site.server.call("CONFIG", "REWRITE")
        chown(*words)

    monkeypatch.setattr(os, "fchown", rewrite_first)
    report = refused(site, greet)
    assert (report.reason, "was changed at the same time" in report.message) == (Reason.PERSISTENCE_CONFLICT, True)
    assert "maxclients 123" in (site.server.folder / "server.conf").read_text()


def test_nothing_to_adopt(site, built):
    report = adopt(site, built("base"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.NOTHING_TO_ADOPT)


def test_a_module_that_is_ours(site, built):
    base = built("base")
    site.install(base)
    report = adopt(site, replace(base, package=built("greet").package))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.NOTHING_TO_ADOPT)
    assert site.server.loaded() == {("base", base.version), ("greet", 10000)}


def test_another_version(site, built):
    assert "and not version 10001" in refused(site, built("greet", 10001)).message


def test_an_operation_without_adoption_still_refuses_it(site, greet):
    report = site.install(greet)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.MODULE_NOT_OURS)
    assert site.command(greet).action is Action.INSTALL


@pytest.mark.parametrize("owner", ["include", "rewrite", "external"])
def test_two_lines_of_one_module(site, greet):
    """The next start fails already. A person must say which one goes."""
    main = site.server.folder / "server.conf"
    main.write_text(f"{main.read_text()}loadmodule {path_of(site, greet)}\n")
    assert known(site).obstacle.startswith("More than one line loads it: ")
    assert refused(site, greet).reason is Reason.PERSISTENCE_CONFLICT


# --- What changes in the meantime


def at(site, built, phase, do):
    """The adoption; `do` is called while it reports `phase`."""
    return site.run_and(site.command(built, adopt=True), phase, do)


def test_a_file_that_is_replaced_meanwhile(site, greet):
    """The next start loads the artifact: the bytes that the server has in its memory."""

    def replace_file():
        other = site.root / "other"
        other.write_text("other")
        other.replace(site.root / "foreign.so")

    assert at(site, greet, Phase.FETCHING, replace_file).phase is Phase.SUCCEEDED
    site.server.restart()
    assert loaded_from(site) == [path_of(site, greet)]


def test_a_restart_meanwhile(site, greet):
    report = at(site, greet, Phase.FETCHING, site.server.restart)
    assert (report.phase, report.reason, site.left()) == (Phase.FAILED, Reason.SERVER_UNREACHABLE, [])
    assert adopt(site, greet).phase is Phase.SUCCEEDED


def test_an_artifact_that_was_deleted(site, greet):
    site.shelf.status = 404
    assert refused(site, greet).reason is Reason.FETCH_FAILED
    assert (shown(site).ours, site.server.loads()) == (False, [foreign_line(site)])


def foreign_line(site):
    return "/".join(f"loadmodule {site.root / 'foreign.so'}".split("/")[-3:])


# --- What does not belong to the server


@pytest.fixture
def other_user(site, monkeypatch):
    """The server runs as another user than the owner of the file that it names."""
    monkeypatch.setattr("rollout.agent.inspection.start_lines.StartReader.uid", 4711)
    monkeypatch.setattr("os.geteuid", lambda: 0)


@pytest.mark.usefixtures("other_user")
def test_root_changes_no_file_of_another_user(site, greet):
    """A server may say that the configuration of another server is its own."""
    text = (site.server.folder / "server.conf").read_text()
    assert known(site).by_person
    assert adopt(site, greet, deadline_seconds=1).reason is Reason.EXTERNAL_CONFIGURATION
    assert (site.server.folder / "server.conf").read_text() == text


def test_a_module_that_comes_with_the_server(site, greet, monkeypatch):
    monkeypatch.setattr("rollout.agent.server.observation.BUNDLES", (str(site.root),))
    assert (shown(site).bundled, shown(site).sha256, shown(site).line) == (True, "", "")
    report = refused(site, greet)
    assert (report.reason, "it comes with the server" in report.message) == (Reason.MODULE_NOT_OURS, True)


def test_another_server_of_the_host_has_the_same_file(site, greet, binary):
    other = Configured(site.root / "t", binary=binary, aof="no", more=[f"loadmodule {site.root / 'foreign.so'}"])
    other.start()
    try:
        text = other.file.read_text()
        assert adopt(site, greet).phase is Phase.SUCCEEDED
        other.restart()
        assert (other.file.read_text(), other.loaded()) == (text, {("greet", 10000)})
    finally:
        other.kill()


# --- A person changes the line


def link_main(site):
    """Then the agent does not replace the file."""
    main, real = site.server.folder / "server.conf", site.server.folder / "real.conf"
    main.rename(real)
    main.symlink_to(real)


def change_line(site, built):
    main = site.server.folder / "server.conf"
    main.write_text(main.read_text().replace(str(site.root / "foreign.so"), path_of(site, built)))


@pytest.fixture
def by_person(site, owner):
    if owner != "external":
        link_main(site)
    assert (known(site).obstacle, shown(site).by_person) == ("", True)
    return site


BY_PERSON = pytest.mark.parametrize("owner", ["include", "rewrite", "external"])


@BY_PERSON
@pytest.mark.usefixtures("by_person")
def test_the_operation_waits_for_the_line(site, greet):
    before, place, reports = run_id(site), shown(site).line, []
    thread = threading.Thread(target=lambda: reports.append(adopt(site, greet)))
    thread.start()
    wait_for(lambda: site.runner.heartbeat(hello=False).facts.to_do)
    said = site.runner.heartbeat(hello=False).facts.to_do
    foreign = site.root / "foreign.so"
    assert said == (
        f"Replace the line `loadmodule {foreign}` ({place}) by "
        f"`loadmodule {path_of(site, greet)}`. The server needs no restart."
    )
    change_line(site, greet)
    thread.join()
    assert (reports[0].phase, site.phases()[-2]) == (Phase.SUCCEEDED, Phase.LOADING)
    assert (run_id(site), shown(site).ours, shown(site).adopted_from) == (before, True, str(foreign))
    assert site.runner.heartbeat(hello=False).facts.to_do == ""
    site.server.restart()
    assert (loaded_from(site), shown(site).adopted_from) == ([path_of(site, greet)], "")


@pytest.mark.parametrize("owner", ["external"])
def test_a_second_line_is_not_enough(site, greet):
    """With both lines, the next start fails."""

    def add():
        with (site.server.folder / "server.conf").open("a") as file:
            file.write(f"loadmodule {path_of(site, greet)}\n")

    report = site.run_and(site.command(greet, adopt=True, deadline_seconds=2), Phase.LOADING, add)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXTERNAL_CONFIGURATION)
    assert shown(site).ours is False


@BY_PERSON
@pytest.mark.usefixtures("by_person")
def test_a_line_that_comes_late_names_the_files(site, greet):
    report = adopt(site, greet, deadline_seconds=2)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXTERNAL_CONFIGURATION)
    assert "Replace the line" in report.message
    change_line(site, greet)
    report = adopt(site, greet)
    assert (report.phase, loaded_from(site)) == (Phase.SUCCEEDED, [str(site.root / "foreign.so")])
    site.server.restart()
    assert loaded_from(site) == [path_of(site, greet)]


@BY_PERSON
@pytest.mark.usefixtures("by_person")
@pytest.mark.parametrize("is_written", [False, True])
def test_a_cancel_deletes_no_file_that_a_line_names(site, greet, is_written):
    command = site.command(greet, adopt=True)

    def cancel():
        if is_written:
            change_line(site, greet)
        site.runner.give_up(command)

    report = site.run_and(command, Phase.LOADING, cancel)
    assert (report.phase, bool(site.left())) == (Phase.CANCELED, is_written)
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


@BY_PERSON
@pytest.mark.usefixtures("by_person")
@pytest.mark.parametrize("is_written", [False, True])
def test_a_restart_while_it_waits(site, greet, is_written):
    def restart():
        if is_written:
            change_line(site, greet)
        site.server.restart()

    report = site.run_and(site.command(greet, adopt=True), Phase.LOADING, restart)
    if is_written:
        assert (report.phase, shown(site).ours, shown(site).adopted_from) == (Phase.SUCCEEDED, True, "")
    else:
        assert (report.phase, report.reason, site.left()) == (Phase.FAILED, Reason.SERVER_UNREACHABLE, [])


@pytest.mark.parametrize("owner", ["external"])
@pytest.mark.parametrize("site", [[]], indirect=True)
def test_a_person_adds_a_line(site, greet):
    site.server.call("MODULE", "LOAD", str(site.root / "foreign.so"))
    assert (known(site).line, shown(site).by_person) == ("", True)

    def add():
        with (site.server.folder / "server.conf").open("a") as file:
            file.write(f"loadmodule {path_of(site, greet)}\n")

    assert site.run_and(site.command(greet, adopt=True), Phase.LOADING, add).phase is Phase.SUCCEEDED
    site.server.restart()
    assert loaded_from(site) == [path_of(site, greet)]


# --- Through a rollout


@pytest.mark.django_db
def test_an_adoption_through_a_rollout(site, greet, admin):
    upload(greet)
    know("n1")
    beat(site, hello=True)
    known(site)
    beat(site)
    body = {"action": "install", "module_name": "greet", "version": greet.version, "adopt": True, "nodes": ["n1"]}
    uid = admin.post("/v2/rollouts", body, content_type="application/json").json()["uid"]
    advance(uid)
    ((_, command),) = commands_of(list(Operation.objects.filter(rollout=uid)))
    assert command.package
    path = f"/{greet.package.package_sha256}"
    site.shelf.content[path] = greet.blob
    report = site.run(replace(command, package=replace(command.package, url=site.shelf.url + path)))
    ingestion.record_reports([to_json(report)])
    assert (phases(uid), report.message) == ({"n1": "succeeded"}, operation(uid, "n1").message)
    beat(site)
    row = NodeModule.objects.get(node="n1")
    assert (row.desired, row.observed, row.state, row.drifted_at) == ("load", "load", "in_sync", None)
    (shown_module,) = [
        each for each in admin.get("/v2/nodes/n1").json()["server_state"]["modules"] if each["name"] == "greet"
    ]
    assert (shown_module["ours"], shown_module["adopted_from"]) == (True, str(site.root / "foreign.so"))
    site.server.restart()
    assert loaded_from(site) == [path_of(site, greet)]


def beat(site, *, hello=False):
    ingestion.record_heartbeats([to_json(site.runner.heartbeat(hello=hello))])


def upload(built):
    """The module's build; the agent gets its bytes from the shelf."""
    event = ArtifactUploaded(
        module_name=built.name,
        version=built.version,
        platform="linux/x86_64",
        content_sha256=built.package.content_sha256,
        package_sha256=built.package.package_sha256,
        size=built.package.size,
        storage_key=built.name,
        module_file=built.package.module_file,
        members=built.package.members,
        dependencies=(),
        document={"module_name": built.name, "version": built.version, "commands": []},
    )
    append(Append(artifact_stream(built.name, built.version), 0, [event]))


def test_the_doctor_examines_other_modules_at_once_but_not_during_an_operation(site):
    settings, runs = site.runner.node.settings, []

    def doctor():
        runs.append(1)
        return run_doctor(settings)

    node = Node(settings, examinations=Examinations(doctor, changed=lambda: None, interval=3600))

    def is_foreign():
        findings = node.heartbeat(hello=False).doctor or ()
        return any("greet" in each.message for each in findings if each.check == "foreign_modules")

    wait_for(is_foreign)
    before = len(runs)
    with node.journal.try_lock() as is_free:
        assert is_free
        site.server.call("MODULE UNLOAD", "greet")
        assert is_foreign()
        assert len(runs) == before
    wait_for(lambda: not is_foreign())
    assert len(runs) == before + 1
