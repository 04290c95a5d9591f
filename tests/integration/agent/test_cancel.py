"""Operations that are given up: before, while and after they are worked on, and by an agent that died."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rollout.agent.failure import MalformedCommandError
from rollout.agent.node.journal import Journal
from rollout.messages import Action, Phase, Reason

pytestmark = pytest.mark.slow

BEFORE_THE_PROBE = ["fetching", "verifying", "installing", "loading", "probing"]


def cancel(site, command):
    site.said = []
    report = site.runner.cancel(command, report=site.said.append)
    assert report is None or site.said[-1] == report
    return report


def run_and_give_up(site, command, phase):
    """The command, given up while it reports `phase`."""
    return site.runner.execute(command, report=lambda said: said.phase == phase and site.runner.give_up(command))


def is_canceled(report):
    return (report.phase, report.reason, report.message) == (
        Phase.CANCELED, Reason.MANUAL, "The operation was canceled."
    )  # fmt: skip


def is_as_before(site, built):
    """Whether the node has greet 1.0.0, loaded, and nothing else."""
    greet = built("greet")
    (module,) = site.runner.node.inventory().modules
    assert (module.content_sha256, module.loaded) == (greet.package.content_sha256, True)
    assert site.left() == ["greet", "greet/10000", "greet/10000/greet.so", "greet/10000/module.json"]
    assert site.include() == [f"loadmodule {site.folder(greet)}/greet.so"]
    return site.server.loaded() == {("greet", 10000)}


def test_a_download_that_hangs_is_given_up(site, built, waits):
    site.shelf.gate.clear()
    command = site.command(built("greet"))
    with ThreadPoolExecutor() as pool:
        work = pool.submit(site.run, command)
        waits(lambda: site.shelf.asked)
        report = site.runner.cancel(command, report=site.said.append)
        assert work.result() == report
    assert is_canceled(report)
    assert site.left() == []


@pytest.mark.parametrize("phase", BEFORE_THE_PROBE)
def test_an_upgrade_given_up_before_its_probe_goes_back(site, built, phase):
    site.install(built("greet"))
    assert is_canceled(run_and_give_up(site, site.command(built("greet", 10001)), phase))
    assert is_as_before(site, built)


@pytest.mark.parametrize("phase", BEFORE_THE_PROBE)
def test_a_rebuild_given_up_before_its_probe_goes_back(site, built, repack, phase):
    site.install(built("greet"))
    assert is_canceled(run_and_give_up(site, site.command(repack(built("greet"))), phase))
    assert is_as_before(site, built)


def test_what_cannot_be_put_back_is_a_failure(site, built):
    report = run_and_give_up(site, site.command(built("types", 1)), "probing")
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXPORTS_DATA_TYPES)
    assert "was canceled. The node could not be restored completely" in report.message
    assert site.server.loaded() == {("types", 1)}


def test_a_cancel_that_crosses_the_end_is_answered_with_it(site, built):
    command = site.command(built("greet"))
    report = site.runner.execute(command, report=lambda said: said.phase is Phase.SUCCEEDED and cancel(site, command))
    assert site.said == [report]
    assert site.server.loaded() == {("greet", 10000)}


def test_a_removal_is_given_up_before_it_unloads(site, built):
    site.install(built("greet"))
    assert is_canceled(cancel(site, site.command(built("greet"), Action.REMOVE)))
    assert is_as_before(site, built)


def test_what_waits_behind_another_never_begins(site, built, waits):
    site.shelf.gate.clear()
    first, second = site.command(built("greet")), site.command(built("types", 1))
    with ThreadPoolExecutor() as pool:
        work = pool.submit(site.run, first)
        waits(lambda: site.shelf.asked)
        answer = pool.submit(site.runner.cancel, second, report=site.said.append)
        site.shelf.gate.set()
        assert work.result().phase is Phase.SUCCEEDED
    assert is_canceled(answer.result())
    assert site.run(second) == answer.result()
    assert site.server.loaded() == {("greet", 10000)}


def test_a_command_that_comes_after_its_cancel_is_not_carried_out(site, built):
    command = site.command(built("greet"))
    report = cancel(site, command)
    assert is_canceled(report)
    site.restart_agent()
    assert site.run(command) == report
    assert (site.left(), site.shelf.asked) == ([], [])
    assert site.run(replace(command, attempt=2)).phase is Phase.SUCCEEDED


def test_a_cancel_that_comes_again_is_answered_again(site, built):
    command = site.command(built("greet"))
    assert cancel(site, command) == cancel(site, command)
    assert len(site.said) == 1


def test_it_is_marked_once_until_it_is_answered(site, built):
    command = site.command(built("greet"))
    assert [site.runner.give_up(command) for _ in range(2)] == [True, False]
    cancel(site, command)
    assert site.runner.give_up(command)


@pytest.mark.parametrize("module", ["greet", "refuses"])
def test_what_has_ended_stays_as_it_ended(site, built, module):
    command = site.command(built(module))
    report = site.run(command)
    assert cancel(site, command) == report
    assert site.said == [report]


def test_a_cancel_older_than_the_journal_is_stale(site, built):
    old = site.command(built("greet"))
    site.install(built("greet"))
    assert cancel(site, old).reason is Reason.STALE_GENERATION
    assert site.server.loaded() == {("greet", 10000)}


def test_an_expired_cancel_is_dropped(site, built):
    command = site.command(built("greet"))
    assert not site.runner.give_up(replace(command, expires=1.0))
    assert cancel(site, replace(command, expires=1.0)) is None
    assert site.run(command).phase is Phase.SUCCEEDED


def test_a_cancel_that_cannot_be_ours_is_refused(site, built):
    with pytest.raises(MalformedCommandError):
        site.runner.give_up(site.command(built("greet"), node="n2"))


def test_what_never_began_needs_no_server(site, built):
    site.server.kill()
    assert is_canceled(cancel(site, site.command(built("greet"))))


@pytest.mark.parametrize("phase", BEFORE_THE_PROBE)
def test_an_upgrade_of_a_killed_agent_goes_back(site, built, phase):
    site.install(built("greet"))
    command = site.command(built("greet", 10001))
    site.run_and_die(command, phase)
    site.restart_agent()
    assert is_canceled(cancel(site, command))
    assert is_as_before(site, built)
    assert is_canceled(site.run(command))


@pytest.mark.parametrize("phase", BEFORE_THE_PROBE)
def test_a_rebuild_of_a_killed_agent_goes_back(site, built, repack, phase):
    site.install(built("greet"))
    command = site.command(repack(built("greet")))
    site.run_and_die(command, phase)
    site.restart_agent()
    assert is_canceled(cancel(site, command))
    assert is_as_before(site, built)


def test_a_killed_agent_that_had_answered_answers_the_same(site, built):
    command = site.command(built("greet"))
    site.run_and_die(command, "succeeded")
    site.restart_agent()
    assert cancel(site, command).phase is Phase.SUCCEEDED


def test_what_a_killed_agent_changed_stays_told_when_the_server_is_away(site, built):
    command = site.command(built("greet"))
    site.run_and_die(command, "loading")
    site.server.kill()
    site.restart_agent()
    report = cancel(site, command)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_UNREACHABLE)
    assert site.left() == []


def test_a_removal_that_a_killed_agent_had_not_begun_is_canceled(site, built):
    site.install(built("greet"))
    command = site.command(built("greet"), Action.REMOVE)
    site.run_and_die(command, "removing")
    site.restart_agent()
    assert is_canceled(cancel(site, command))
    assert is_as_before(site, built)


def test_a_removal_that_a_killed_agent_had_begun_is_finished(site, built):
    site.install(built("greet"))
    command = site.command(built("greet"), Action.REMOVE)
    site.run_and_die(command, "removing")
    journal = Journal(site.root / "journal")
    entry = journal.entry("greet")
    assert entry
    journal.commit("greet", entry)
    site.server.call("MODULE", "UNLOAD", "greet")
    site.restart_agent()
    assert cancel(site, command).phase is Phase.SUCCEEDED
    assert (site.left(), site.include()) == ([], [])
