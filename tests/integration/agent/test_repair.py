"""A server that would not start again: it gets no change, except one after which it would start."""

import threading

import pytest

from rollout.agent.node.start_checks import StartChecks, last_result
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.messages import Activation, Phase, Reason, WouldStart
from tests.integration.agent import test_persistence
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_persistence import owned_by
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]
aof, owner, owned_site = test_persistence.aof, test_persistence.owner, test_persistence.site


@pytest.fixture
def site(owned_site):
    """A server with a configuration file, and an agent that checks its start."""
    site = owned_site
    settings = settings_from(site.environ)
    checks = StartChecks(settings, changed=lambda: None)
    site.runner = Runner(settings, start_checks=checks)
    site.runner.recover()
    yield site
    wait_for(lambda: not [each for each in threading.enumerate() if each.name == "start-check"])


def would_start(site):
    return site.runner.heartbeat(hello=False).facts.would_start


def wait_until_it(site, answer):
    wait_for(lambda: would_start(site) == answer)


def break_file(site, built):
    """Replace the file of a loaded version, as a bad disk or a person does it."""
    (file,) = site.folder(built).glob("*.so")
    file.unlink()
    file.write_bytes(b"no library")
    file.chmod(0o755)
    wait_until_it(site, WouldStart.NO)


def test_another_change_is_returned(site, built):
    site.install(built("greet"))
    break_file(site, built("greet"))
    before = site.left(), site.include()
    report = site.install(built("base"))
    assert (report.phase, report.reason) == (Phase.SCHEDULED, Reason.SERVER_NOT_READY)
    assert report.message.startswith(
        "The server would not start again, and it would not start after this change either: The server does not start with "
    )
    assert "remove or roll back the module" in report.message
    assert (site.left(), site.include(), site.server.loaded()) == (*before, {("greet", 10000)})


def test_a_removal_of_another_module_is_returned(site, built):
    site.install(built("base"))
    site.install(built("greet"))
    break_file(site, built("greet"))
    report = site.remove(built("base"))
    assert (report.phase, report.reason) == (Phase.SCHEDULED, Reason.SERVER_NOT_READY)
    assert site.server.loaded() == {("base", 10000), ("greet", 10000)}


def test_a_removal_of_the_broken_module(site, built):
    site.install(built("greet"))
    break_file(site, built("greet"))
    assert site.remove(built("greet")).phase is Phase.SUCCEEDED
    assert would_start(site) is WouldStart.YES
    site.server.restart()
    assert site.server.loaded() == set()


@pytest.mark.parametrize("version", [10000, 10001], ids=["corrected file", "upgrade"])
def test_an_installation_that_repairs(site, built, version):
    site.install(built("greet"))
    break_file(site, built("greet"))
    report = site.install(built("greet", version))
    assert (report.phase, report.message) == (Phase.SUCCEEDED, "")
    assert would_start(site) is WouldStart.YES
    site.server.restart()
    assert site.server.loaded() == {("greet", version)}


def test_a_rollback_that_repairs(site, built):
    site.install(built("greet"))
    site.install(built("greet", 10001))
    break_file(site, built("greet", 10001))
    assert site.install(built("greet"), undoes=10001).phase is Phase.SUCCEEDED
    assert would_start(site) is WouldStart.YES
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


@pytest.mark.parametrize("version", [1, 2], ids=["unload", "other version"])
def test_a_rollback_to_files(site, built, version):
    site.install(built("base", 1), activation=Activation.FILES)
    site.install(built("greet"))
    site.install(built("base", version))
    break_file(site, built("greet"))
    command = {"activation": Activation.FILES, "undoes": version}
    assert site.install(built("base", 1), **command).phase is Phase.SCHEDULED
    assert site.server.loaded() == {("base", version), ("greet", 10000)}
    break_file(site, built("base", version))
    assert site.remove(built("greet")).phase is Phase.SCHEDULED, "base stops the start too"


def test_a_repair_of_a_module_that_others_need(site, built):
    site.install(built("base"))
    site.install(built("needs"), load_order=("base", "needs"))
    break_file(site, built("base"))
    report = site.install(built("greet"))
    assert report.phase is Phase.SCHEDULED
    assert site.install(built("base"), load_order=("base", "needs")).phase is Phase.SUCCEEDED
    wait_until_it(site, WouldStart.YES)


def test_lines_in_a_wrong_order(site, built):
    site.install(built("base"))
    site.install(built("needs"), load_order=("base", "needs"))
    include = site.root / "modules/modfleet.conf"
    include.write_text("".join(f"{line}\n" for line in reversed(site.include())))
    wait_until_it(site, WouldStart.NO)
    assert site.install(built("greet")).phase is Phase.SCHEDULED
    assert site.install(built("base", 2), load_order=("base", "needs")).phase is Phase.SUCCEEDED
    assert would_start(site) is WouldStart.YES
    assert [each.split("/")[-1] for each in site.include()] == ["base.so", "needs.so"]


def test_what_is_not_known_is_no_repair(site, built):
    site.install(built("greet"))
    break_file(site, built("greet"))
    site.environ["MODFLEET_SERVER_BINARY"] = "/nonexistent"
    settings = settings_from(site.environ)
    wait_for(lambda: (kept := last_result(settings)) is not None and kept.result is WouldStart.NO)
    site.runner = Runner(settings, start_checks=StartChecks(settings, changed=lambda: None))
    report = site.remove(built("greet"))
    assert (report.phase, report.reason) == (Phase.SCHEDULED, Reason.SERVER_NOT_READY)
    assert "is not known to start after this change" in report.message


@owned_by("rewrite")
def test_a_line_in_the_main_file(site, built):
    site.install(built("greet"))
    break_file(site, built("greet"))
    assert site.install(built("base")).phase is Phase.SCHEDULED
    assert site.remove(built("greet")).phase is Phase.SUCCEEDED
    wait_until_it(site, WouldStart.YES)
    site.server.restart()
    assert site.server.loaded() == set()
