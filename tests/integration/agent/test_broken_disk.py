"""Whatever fails on a node's disk is reported at once, at each step of an operation, by the agent's process.

Modes of files stop no root, so folders are replaced by files, and files by folders.
"""

import shutil

import pytest

from rollout.messages import Action, Phase, Reason, to_json
from tests.integration.agent.test_worker import Worker, broker

__all__ = ["broker"]

pytestmark = pytest.mark.slow


@pytest.fixture
def worker(site, broker, waits):
    worker = Worker(site, broker, waits)
    yield worker
    worker.kill()
    if (entry := site.root / "journal/greet.json").is_dir():
        entry.chmod(0o700)  # the agent has made it private like a file; without this, only root could remove it


def replace_by_file(folder):
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.write_text("")


def the_journal(site):
    replace_by_file(site.root / "journal")


def the_lock(site):
    (site.root / "journal/.lock").unlink(missing_ok=True)
    (site.root / "journal/.lock").mkdir()


def the_entry(site):
    (site.root / "journal/greet.json").unlink(missing_ok=True)
    (site.root / "journal/greet.json/x").mkdir(parents=True)


def the_modules(site):
    replace_by_file(site.root / "modules")


def the_module_s_folder(site):
    (site.root / "modules/greet").write_text("")


def the_include_file(site):
    (site.root / "modules/modfleet.conf").unlink()
    (site.root / "modules/modfleet.conf/x").mkdir(parents=True)


BEFORE = [the_journal, the_lock, the_entry, the_modules, the_module_s_folder, the_include_file]


def refuses(worker, command):
    worker.send(to_json(command))
    (report,) = worker.final(command.rollout)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.IO_ERROR)
    return report


@pytest.mark.parametrize("breaks", BEFORE)
def test_before_it_starts(worker, site, built, breaks, waits):
    breaks(site)
    worker.start()
    waits(worker.heartbeats)  # the node is there, and says so
    refuses(worker, site.command(built("greet")))


@pytest.mark.parametrize("breaks", BEFORE)
def test_while_it_waits(worker, site, built, breaks, waits):
    worker.start()
    waits(worker.heartbeats)
    breaks(site)
    refuses(worker, site.command(built("greet")))
    seen = len(worker.heartbeats())
    waits(lambda: len(worker.heartbeats()) > seen)


@pytest.mark.parametrize("breaks", [the_modules, the_journal, the_include_file])
def test_while_it_fetches(worker, site, built, breaks):
    site.shelf.gate.clear()
    worker.start()
    command = site.command(built("greet"))
    worker.send(to_json(command))
    worker.hears(Phase.FETCHING)
    breaks(site)
    site.shelf.gate.set()
    (report,) = worker.final(command.rollout)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.IO_ERROR)


@pytest.mark.parametrize("breaks", [the_journal, the_entry, the_modules, the_include_file])
def test_before_a_removal(worker, site, built, breaks):
    worker.start()
    done = site.command(built("greet"))
    worker.send(to_json(done))
    worker.final(done.rollout)
    breaks(site)
    refuses(worker, site.command(built("greet"), Action.REMOVE))


def test_a_cancel_is_answered_too(worker, site, built, waits):
    worker.start()
    waits(worker.heartbeats)
    the_journal(site)
    command = site.command(built("greet"))
    worker.cancel(to_json(command))
    assert worker.final(command.rollout)[0].reason is Reason.IO_ERROR


def test_a_disk_that_comes_back_needs_no_restart(worker, site, built, waits):
    the_journal(site)
    worker.start()
    waits(worker.heartbeats)
    refuses(worker, site.command(built("greet")))
    (site.root / "journal").unlink()
    command = site.command(built("greet"))
    worker.send(to_json(command))
    assert worker.final(command.rollout)[0].phase is Phase.SUCCEEDED


@pytest.mark.parametrize(
    "change",
    [{"action": "dance"}, {"version": "x"}, {"package": None}, {"package": {"url": 1}}, {"expires": "x"}],
)
def test_a_command_that_is_not_understood_is_refused(worker, site, built, change):
    worker.start()
    command = site.command(built("greet"))
    worker.send(to_json(command) | change)
    (report,) = worker.final(command.rollout)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.AGENT_ERROR)
    assert "Upgrade the agent" in report.message


def test_a_command_of_another_node_is_not_answered(worker, site, built):
    worker.start()
    foreign, own = site.command(built("greet"), node="n2"), site.command(built("greet"))
    worker.send(to_json(foreign))
    worker.send(to_json(foreign) | {"action": "dance"})
    worker.send(to_json(own))
    assert worker.final(own.rollout)[0].phase is Phase.SUCCEEDED
    assert {each.rollout for each in worker.reports()} == {own.rollout}
