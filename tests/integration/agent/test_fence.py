"""Commands that come twice, late or out of order, and agents that die."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rollout.agent.failure import MalformedCommandError
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.messages import Action, Activation, Phase, Reason

pytestmark = pytest.mark.slow

PHASES = ["fetching", "verifying", "installing", "loading", "probing", "succeeded"]


def test_ten_times_the_same_command_is_one_install(site, built):
    command = site.command(built("greet"))
    reports = [site.run(command) for _ in range(10)]
    assert all(report == reports[0] for report in reports)
    assert site.said == [reports[0]]
    assert len(site.shelf.asked) == 1


def test_the_same_command_at_once_is_one_install(site, built):
    """Also for two agents of the node, while one takes over from the other."""
    site.shelf.gate.clear()
    command = site.command(built("greet"))
    agents = [site.runner, site.runner, Runner(settings_from(site.environ)), Runner(settings_from(site.environ))]
    with ThreadPoolExecutor() as pool:
        work = [pool.submit(each.execute, command, report=site.said.append) for each in agents]
        site.shelf.gate.set()
        reports = {each.result() for each in work}
    assert [each.phase for each in reports] == [Phase.SUCCEEDED]
    assert (len(site.shelf.asked), site.server.call("INFO", "commandstats")["cmdstat_module|load"]["calls"]) == (1, 1)


def test_a_failure_is_answered_again_without_work(site, built):
    command = site.command(built("refuses"))
    first = site.run(command)
    site.restart_agent()
    assert site.run(command) == first
    assert len(site.shelf.asked) == 1


def test_a_higher_attempt_works_again(site, built):
    site.shelf.status = 503
    command = site.command(built("greet"))
    site.run(command)
    site.shelf.status = 200
    assert site.run(replace(command, attempt=2)).phase is Phase.SUCCEEDED
    late = site.run(command)
    assert (late.phase, late.reason, late.attempt) == (Phase.FAILED, Reason.STALE_GENERATION, 1)


def test_an_older_generation_is_refused(site, built):
    old = site.command(built("greet"))
    new = site.run(site.command(built("greet"), Action.REMOVE))
    report = site.run(old)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.STALE_GENERATION)
    assert report.generation == old.generation
    assert (site.left(), site.shelf.asked) == ([], [])
    assert site.runner.heartbeat(hello=False).generations == {"greet": new.generation}


def test_another_rollout_under_the_same_number_is_refused(site, built):
    command = site.command(built("greet"))
    site.run(command)
    assert site.run(replace(command, rollout="other")).reason is Reason.STALE_GENERATION


def test_modules_are_fenced_apart(site, built):
    early = site.command(built("greet"))
    site.install(built("types", 1))
    assert site.run(early).phase is Phase.SUCCEEDED


def test_an_expired_command_is_dropped_and_costs_no_attempt(site, built):
    command = site.command(built("greet"))
    assert site.run(replace(command, expires=1.0)) is None
    assert site.said == []
    assert site.run(command).phase is Phase.SUCCEEDED


@pytest.mark.parametrize(
    "wrong", [{"node": "n2"}, {"module_name": ".."}, {"module_name": "a/b"}, {"version": -1}, {"package": None}]
)
def test_a_command_that_cannot_be_ours_is_refused(site, built, wrong):
    with pytest.raises(MalformedCommandError):
        site.install(built("greet"), **wrong)
    assert site.left() == []


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_upgrade_is_finished_when_repeated(site, built, phase):
    site.install(built("greet"))
    command = site.command(built("greet", 10001))
    site.run_and_die(command, phase)
    site.restart_agent()
    assert site.run(command).phase is Phase.SUCCEEDED
    assert site.server.loaded() == {("greet", 10001)}
    assert site.include() == [f"loadmodule {site.folder(built('greet', 10001))}/greet.so"]
    assert not [name for name in site.left() if "/." in name]


@pytest.mark.parametrize("phase", PHASES[:4])
def test_a_killed_upgrade_that_then_fails_goes_back(site, built, repack, phase):
    greet = built("greet")
    site.install(greet)
    command = site.command(repack(greet, version=10001, module=built("refuses")))
    site.run_and_die(command, phase)
    site.restart_agent()
    assert site.run(command).reason is Reason.LOAD_FAILED
    assert site.server.loaded() == {("greet", 10000)}
    assert site.left() == ["greet", "greet/10000", "greet/10000/greet.so", "greet/10000/module.json"]


@pytest.mark.parametrize("phase", PHASES[:4])
def test_a_killed_rebuild_that_then_fails_goes_back(site, built, repack, phase):
    greet = built("greet")
    site.install(greet)
    command = site.command(repack(greet, module=built("refuses")))
    site.run_and_die(command, phase)
    site.restart_agent()
    assert site.run(command).reason is Reason.LOAD_FAILED
    assert site.server.loaded() == {("greet", 10000)}
    (module,) = site.runner.node.inventory().modules
    assert (module.content_sha256, module.loaded) == (greet.package.content_sha256, True)


def test_a_killed_install_leaves_nothing_after_the_start(site, built):
    site.run_and_die(site.command(built("greet"), activation=Activation.FILES), "verifying")
    assert site.left() != []
    site.restart_agent()
    assert site.left() == []


def test_a_damaged_journal_is_told(site, built):
    site.install(built("greet"))
    (site.root / "journal/greet.json").write_text("{")
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.IO_ERROR)
    assert "greet.json" in report.message
    site.restart_agent()
    assert site.runner.heartbeat(hello=True).generations == {}


def test_sequences_grow_over_restarts(site):
    first = site.runner.node.inventory().sequence
    second = site.runner.node.inventory().sequence
    site.restart_agent()
    assert first < second < site.runner.node.inventory().sequence
