"""Back to a version that cannot read what the new one has written: the data from before are put back, if that was allowed."""

import json
import shutil
import signal

import pytest

from rollout.agent.restart.kept_data import KeptData
from rollout.messages import Phase, Reason, Way, WayBackResult
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_restart import both, keep, kept, node
from tests.integration.agent.test_restart_faults import RESTART, run_and_die_at
from tests.integration.agent.test_way_back import upgraded
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

__all__ = ["node"]


def upgraded_one_way(node, built):
    """Version 2000 has written what version 1 cannot read: 30 keys, and one more."""
    found = upgraded(node, built, 1, 2000)
    assert found.result is WayBackResult.CLOSED
    assert found.kept_file
    node.server.call("KEEPS.SET", "new", 1)
    node.server.call("SAVE")


@both
def test_the_data_from_before_are_put_back(node, built):
    upgraded_one_way(node, built)
    report = node.restart(built("keeps", 1), may_discard_data=True)
    assert report.phase is Phase.SUCCEEDED, report
    assert (node.server.loaded(), kept(node), node.server.call("DBSIZE")) == ([("keeps", 1)], 30, 30)
    assert "before version 2000 were put back, without what was written since" in report.message
    assert not list(node.server.folder.glob("*before-keeps*"))


@both
def test_they_are_not_put_back_unless_that_is_allowed(node, built):
    upgraded_one_way(node, built)
    report = node.restart(built("keeps", 1))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_FAILED)
    assert (node.server.loaded(), node.server.call("DBSIZE")) == ([("keeps", 2000)], 31)
    (data,) = node.server.folder.glob("*before-keeps*")
    assert (
        f'Version 2000 runs again. The data from before version 2000 are in {data}. A person goes back to them with "may'
        in report.message
    )
    assert any("Internal error in RDB reading" in line for line in report.server_log), report.server_log


@both
def test_a_server_with_an_append_only_file_says_how_to_go_back_by_hand(node, built):
    """Its failure says which version runs, and why that one stays."""
    upgraded_one_way(node, built)
    node.server.append_only(True)
    report = node.restart(built("keeps", 1), may_discard_data=True)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_FAILED)
    assert node.server.loaded() == [("keeps", 2000)]
    (data,) = node.server.folder.glob("*before-keeps*")
    assert (
        f"Version 2000 runs again. The data from before version 2000 are in {data}. A person goes back to them by hand"
        in report.message
    )


@both
def test_nor_if_the_version_can_read_the_new_ones(node, built):
    assert upgraded(node, built, 1, 2).result is WayBackResult.OPEN
    node.server.call("KEEPS.SET", "new", 1)
    assert node.restart(built("keeps", 1), may_discard_data=True).phase is Phase.SUCCEEDED
    assert node.server.call("DBSIZE") == 31


@both
def test_nor_by_a_rollback(node, built):
    """Another node may have shown that the way is open: its rollout may lose data only where a restart needs it."""
    assert upgraded(node, built, 1, 2, keys=0).result is WayBackResult.UNKNOWN
    keep(node, 30)
    report = node.restart(built("keeps", 1), may_discard_data=True, undoes=2)
    assert report.phase is Phase.SUCCEEDED, report
    assert (node.server.loaded(), node.server.call("DBSIZE")) == ([("keeps", 1)], 30)


@both
def test_a_server_that_does_not_end_has_its_own_data_on_disk(node, built):
    upgraded_one_way(node, built)
    run_id = node.server.run_id
    node.environ |= {"MODFLEET_RESTART": "command", "MODFLEET_RESTART_COMMAND": json.dumps(["false"])}
    node.restart_agent()
    report = node.restart(built("keeps", 1), may_discard_data=True)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_FAILED), report
    assert node.server.run_id == run_id
    assert node.server.call("CONFIG", "GET", "shutdown-on-sigterm")[1] == "default"
    wait_for(lambda: node.server.info("persistence")["rdb_bgsave_in_progress"] == 0)
    node.server.die(signal.SIGKILL)
    wait_for(node.server.answers)
    assert (node.server.loaded(), node.server.call("DBSIZE")) == ([("keeps", 2000)], 31)


@both
def test_nor_if_the_server_would_not_load_them(node, built):
    """It has another file since: without a save at its end, its newest writes would be lost."""
    upgraded_one_way(node, built)
    shutil.copy(node.server.folder / "dump.rdb", node.server.folder / "other.rdb")
    with node.server.file.open("a") as file:
        file.write("dbfilename other.rdb\n")
    node.server.restart()
    node.server.call("KEEPS.SET", "newer", 1)
    report = node.restart(built("keeps", 1), may_discard_data=True)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_FAILED)
    assert (node.server.loaded(), node.server.call("DBSIZE")) == ([("keeps", 2000)], 32)


@both
def test_another_upgrade_that_fails_leaves_them(node, built):
    upgraded_one_way(node, built)
    report = node.restart(built("keeps", 2001), commands=("keeps.missing",))
    assert report.phase is Phase.FAILED, report
    assert node.server.loaded() == [("keeps", 2000)]
    node.runner.heartbeat(hello=False)
    if thread := node.runner.node.holds._thread:
        thread.join()
    assert [each.version for each in KeptData(node.root / "journal").read()] == [2000]
    assert not list(node.server.folder.glob("*before-keeps-2001"))
    report = node.restart(built("keeps", 1), may_discard_data=True)
    assert report.phase is Phase.SUCCEEDED, report
    assert (kept(node), node.server.call("DBSIZE")) == (30, 30)


KEPT = "rollout.agent.restart.kept_data:KeptData"
PLACES = [
    f"{KEPT}:put_back:1",
    f"{RESTART}::end:1",
    f"{RESTART}::_wait_for_start:1",
    f"{RESTART}::forget_kept:1",
    f"{KEPT}:_write:1",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("binary", SERVERS[:1])
def test_the_agent_is_killed_at_each_step(node, built, place):
    upgraded_one_way(node, built)
    command = node.command(built("keeps", 1), way=Way.RESTART, may_discard_data=True)
    run_and_die_at(node, command, place)
    wait_for(node.server.answers)
    node.restart_agent()
    report = node.run(command)
    assert report.phase is Phase.SUCCEEDED, report
    assert (node.server.loaded(), kept(node), node.server.call("DBSIZE")) == ([("keeps", 1)], 30, 30)
    assert not [*node.server.folder.glob("*before-*"), *node.server.folder.glob("*.modfleet")]
    assert KeptData(node.root / "journal").read() == ()
    assert node.runner.node.maintenance.held.read() is None
