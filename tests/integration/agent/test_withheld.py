"""While the versions in a shard differ, an upgraded replica does not become the master."""

import json
import signal
from dataclasses import dataclass, field, replace

import pytest

from rollout.agent.control_plane.identity import Identity, write_identity
from rollout.agent.control_plane.rotation import new_credentials
from rollout.agent.restart.kept_data import KeptData
from rollout.agent.restart.withheld import NO_FAILOVER, Hold, Withheld
from rollout.messages import Phase, Reason, Way
from rollout.signing import ControlSecret, Purpose, envelope_from, read
from tests.integration.agent.test_failover import in_turn
from tests.integration.agent.test_restart import Supervised, both, in_step, kept, node, other
from tests.integration.agent.test_restart_faults import RESTART, run_and_die_at
from tests.ports import free_port
from tests.shards import Machine, sentinel
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

__all__ = ["node", "other"]

SECRET = ControlSecret("the control plane's secret key")
PRIORITY = "replica-priority"
HOLDS = "rollout.agent.node.holds:Holds"


@dataclass
class Control:
    """The control plane: what it answers to nodes that hold something, and what it was `asked`. `status`: of its answers."""

    public_key: str
    withhold: bool = True
    keep_data: bool = True
    status: int = 200
    asked: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, path: str, body: bytes) -> tuple[int, bytes]:
        envelope = envelope_from(json.loads(body))
        SECRET.verify(envelope, self.public_key)
        assert (path, envelope.purpose) == ("/v2/enrolment/holds", Purpose.HOLDS)
        self.asked.append(read(envelope))
        return self.status, json.dumps({"withhold": self.withhold, "keep_data": self.keep_data}).encode()


@pytest.fixture
def control(node, short_folder) -> Control:
    credentials = new_credentials()
    file = short_folder / "identity.json"
    write_identity(file, Identity(node="n1", credentials=credentials, control_keys=(SECRET.public,)))
    node.environ["MODFLEET_IDENTITY_FILE"] = str(file)
    node.restart_agent()
    node.shelf.answer = made = Control(credentials.secret.public)
    return made


@pytest.fixture
def replica(node, other, built, control) -> Supervised:
    """The node's server is a replica with `keeps 1`, which it has loaded by a restart, and with 1,000 keys."""
    for each in (node.server, other):
        each.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    in_step(node.server, other)
    node.server.call("CONFIG", "REWRITE")
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    assert not control.asked  # a first installation: there is no former version
    supervised: Supervised = node
    return supervised


def priority(machine: Machine) -> str:
    return str(machine.call("CONFIG", "GET", PRIORITY)[1])


def configure(machine: Machine, value: int, *, former: int | None = None) -> None:
    """Set the priority now and for the next starts."""
    machine.call("CONFIG", "SET", PRIORITY, value)
    text = machine.file.read_text().replace(f"{PRIORITY} {former}\n", "")
    machine.file.write_text(f"{text}{PRIORITY} {value}\n")


def beat(node: Supervised) -> bool:
    """Send a heartbeat, and wait for the work that it begins. Return what it says."""
    facts = node.runner.heartbeat(hello=False).facts
    assert facts
    if thread := node.runner.node.holds._thread:
        thread.join()
    return facts.withheld


def is_over(node: Supervised) -> bool:
    """Return True if nothing is held any more."""
    return node.runner.node.holds.file.read() == Withheld() and not beat(node)


@both
def test_from_before_the_restart_until_the_control_plane_says_so(replica, built, control):
    seen = []
    command = replica.command(built("keeps", 2), way=Way.RESTART)
    control_call = control.__call__

    def answer(path, body):
        seen.append((replica.server.loaded(), priority(replica.server)))
        return control_call(path, body)

    replica.shelf.answer = answer
    report = replica.run(command)
    assert report.phase is Phase.SUCCEEDED, report
    assert seen[0] == ([("keeps", 1)], "100")
    assert priority(replica.server) == "0"
    assert control.asked[0].items() >= {"rollout": "r2", "module_name": "keeps", "version": 2}.items()
    assert beat(replica)
    control.withhold = False
    beat(replica)
    assert priority(replica.server) == "100"
    assert not beat(replica)
    assert not is_over(replica)  # the rollout may withhold it again
    control.withhold = True
    beat(replica)
    assert priority(replica.server) == "0"
    control.withhold = control.keep_data = False
    data = KeptData(replica.runner.node.settings.journal_dir)
    assert [each.rollout for each in data.read()] == ["r2"]
    beat(replica)
    assert data.read() == ()
    assert is_over(replica)
    assert priority(replica.server) == "100"


@both
def test_a_server_that_restarts_by_itself(replica, built):
    configure(replica.server, 70)
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    assert priority(replica.server) == "0"
    replica.server.die(signal.SIGKILL)
    assert priority(replica.server) == "70"
    beat(replica)
    assert priority(replica.server) == "0"
    assert beat(replica)


@both
@pytest.mark.parametrize("persistence", ["include", "rewrite"])
def test_another_hand_writes_the_configuration_meanwhile(replica, built, control, persistence):
    """Sentinel calls CONFIG REWRITE at each failover: the next start would read our value."""
    replica.environ["MODFLEET_PERSISTENCE"] = persistence
    replica.restart_agent()
    configure(replica.server, 70)
    if persistence == "rewrite":
        beat(replica)  # moves the lines
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    if persistence == "rewrite":
        replica.server.call("CONFIG", "REWRITE")
    else:  # the line alone: it would also write the module's line twice
        configure(replica.server, 0, former=70)
    replica.server.die(signal.SIGKILL)
    control.withhold = control.keep_data = False
    beat(replica)
    assert is_over(replica)
    assert priority(replica.server) == "70"
    assert f"{PRIORITY} 70\n" in replica.server.file.read_text()
    assert f"{PRIORITY} 0\n" not in replica.server.file.read_text()
    replica.server.restart()
    assert priority(replica.server) == "70"
    assert replica.server.loaded() == [("keeps", 2)]


@both
def test_a_file_that_the_agent_must_not_write(replica, built, control):
    replica.environ["MODFLEET_PERSISTENCE"] = "external"
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    replica.restart_agent()
    text = replica.server.file.read_text()
    replica.server.file.write_text(f"{text}\n{PRIORITY} 0\n")
    control.withhold = control.keep_data = False

    def to_do():
        beat(replica)
        return replica.runner.heartbeat(hello=False).facts.to_do

    assert f"Write `{PRIORITY} 100` into" in to_do()
    assert not beat(replica)
    replica.server.file.write_text(f"{text}\n{PRIORITY} 100\n")
    assert PRIORITY not in to_do()
    assert is_over(replica)


@both
def test_a_person_makes_it_the_master(replica, built, control):
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    replica.server.follow(None)
    beat(replica)
    assert priority(replica.server) == "100"
    assert not beat(replica)


@both
def test_a_person_sets_another_value_meanwhile(replica, built, control):
    """It is what comes back."""
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    replica.server.call("CONFIG", "SET", PRIORITY, 30)
    beat(replica)
    assert priority(replica.server) == "0"
    control.withhold = False
    beat(replica)
    assert priority(replica.server) == "30"


@both
def test_a_replica_that_a_person_keeps_from_being_the_master(replica, built, control):
    """That is not ours: the master's turn does not wait for it."""
    configure(replica.server, 0)
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    assert not beat(replica)
    control.withhold = control.keep_data = False
    beat(replica)
    assert is_over(replica)
    assert priority(replica.server) == "0"


@both
def test_an_operation_that_is_undone(replica, built):
    report = replica.restart(built("keeps", 2), commands=("keeps.missing",))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PROBE_FAILED), report
    assert replica.server.loaded() == [("keeps", 1)]
    assert priority(replica.server) == "100"
    assert is_over(replica)


@both
def test_an_operation_that_is_skipped_before_the_restart(replica, built):
    replica.environ["MODFLEET_PRE_COMMAND"] = json.dumps(["false"])
    replica.restart_agent()
    assert replica.restart(built("keeps", 2)).phase is Phase.SKIPPED
    assert priority(replica.server) == "100"
    assert is_over(replica)


def test_the_control_plane_does_not_answer(replica, built, control):
    """As soon as it does, the replica is withheld. Before that it may become the master: it may be the last one that can."""
    control.status = 503
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    assert priority(replica.server) == "100"
    control.status = 200
    beat(replica)
    assert priority(replica.server) == "0"
    control.status = 503
    beat(replica)
    assert priority(replica.server) == "0"


def test_neither_the_master_nor_the_control_plane_answers(replica, built, control):
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    control.status = 503
    holds, state = replica.runner.node.holds, replica.runner.heartbeat(hello=False).facts
    holds._thread.join()
    for seconds, expected in ((59, "0"), (60, "100")):
        holds.look(replace(state, link_down_seconds=seconds))
        holds._thread.join()
        assert priority(replica.server) == expected


def test_a_person_who_owns_the_configuration_restarts_it(replica, built):
    """Or does not, as here: then the replica still has the former version, and may become the master again."""
    replica.environ["MODFLEET_PERSISTENCE"] = "external"
    replica.restart_agent()
    seen = []
    command = replica.command(built("keeps", 2), way=Way.RESTART, deadline_seconds=3)
    report = replica.run_and(command, Phase.LOADING, lambda: seen.append(priority(replica.server)))
    assert report.phase is Phase.FAILED, report
    assert seen == ["0"]
    beat(replica)
    assert priority(replica.server) == "100"
    assert is_over(replica)


def test_an_agent_without_an_identity(node, other, built):
    in_step(node.server, other)
    node.server.call("CONFIG", "REWRITE")
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    report = node.restart(built("keeps", 2))
    assert report.phase is Phase.SUCCEEDED
    assert "cannot ask the control plane" in report.message
    assert priority(node.server) == "100"
    assert is_over(node)


@both
def test_a_user_that_may_not_set_parameters(replica, built, control):
    """Nothing is restarted."""
    replica.server.call("ACL", "SETUSER", "default", "-config|set")
    run_id = replica.server.run_id
    report = replica.restart(built("keeps", 2))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERMISSION_DENIED), report
    assert (replica.server.run_id, replica.server.loaded()) == (run_id, [("keeps", 1)])


def test_a_master(node, built, control):
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    assert not control.asked
    assert node.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    assert control.asked  # for its data
    assert priority(node.server) == "100"


def test_a_removal(replica, built, control):
    assert replica.remove(built("keeps", 1), way=Way.RESTART, even_if_used=True).phase is Phase.SUCCEEDED
    assert not control.asked


PLACES = [
    "rollout.agent.restart.withheld:WithheldFile:write:1",
    "rollout.agent.restart.withheld:WithheldFile:write:2",
    f"{HOLDS}:_settled:1",
    "rollout.agent.restart.held:HeldFile:write:2",
    f"{RESTART}::end:1",
    f"{RESTART}::_wait_for_start:1",
    f"{HOLDS}:settle:2",
    "rollout.agent.node.maintenance:Maintenance:end:1",
]


@pytest.mark.parametrize(("binary", "place"), in_turn(*((each,) for each in PLACES)))
def test_the_agent_is_killed_at_each_step(replica, built, control, place):
    command = replica.command(built("keeps", 2), way=Way.RESTART)
    run_and_die_at(replica, command, place)
    wait_for(replica.server.answers)
    replica.restart_agent()
    assert replica.run(command).phase is Phase.SUCCEEDED
    assert priority(replica.server) == "0"
    assert beat(replica)
    control.withhold = control.keep_data = False
    beat(replica)
    assert priority(replica.server) == "100"
    assert is_over(replica)


BACK = [
    f"{HOLDS}:undo:1",
    f"{HOLDS}:try_to_settle:3",
    "rollout.agent.restart.withheld:WithheldFile:write:5",
]


@pytest.mark.parametrize("place", BACK)
def test_the_agent_is_killed_while_it_goes_back(replica, built, place):
    command = replica.command(built("keeps", 2), way=Way.RESTART, commands=("keeps.missing",))
    run_and_die_at(replica, command, place)
    wait_for(replica.server.answers)
    replica.restart_agent()
    assert replica.run(command).phase is Phase.FAILED
    assert replica.server.loaded() == [("keeps", 1)]
    assert priority(replica.server) == "100"
    assert is_over(replica)


@pytest.mark.parametrize("place", PLACES[:4])
def test_the_command_never_comes_again(replica, built, place):
    """The control plane has ended the operation, and another one has taken its place in the journal."""
    run_and_die_at(replica, replica.command(built("keeps", 2), way=Way.RESTART), place)
    replica.restart_agent()
    replica.runner.node.maintenance.held.clear()
    assert replica.restart(built("keeps", 1)).phase is Phase.SKIPPED
    beat(replica)
    assert priority(replica.server) == "100"
    assert is_over(replica)


def test_a_second_module_and_a_second_rollout(replica, built, control):
    """The value from before the first one comes back after the last one."""
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    assert replica.restart(built("keeps", 3)).phase is Phase.SUCCEEDED
    assert priority(replica.server) == "0"
    control.asked.clear()
    beat(replica)
    assert [each["version"] for each in control.asked] == [3]
    control.withhold = control.keep_data = False
    beat(replica)
    assert priority(replica.server) == "100"
    assert is_over(replica)


@both
def test_a_rollback_that_fails(replica, built, control):
    """It is of the same rollout: the server keeps the new version, so it must not become the master."""
    assert replica.restart(built("keeps", 2), rollout="same").phase is Phase.SUCCEEDED
    assert priority(replica.server) == "0"
    report = replica.restart(built("keeps", 1), rollout="same", undoes=2, commands=("keeps.missing",))
    assert report.phase is Phase.FAILED, report
    assert replica.server.loaded() == [("keeps", 2)]
    assert beat(replica)
    assert priority(replica.server) == "0"


def data_before(node: Supervised) -> list[str]:
    """The data from before operations that are left, and their notes."""
    beat(node)
    notes = KeptData(node.root / "journal").read()
    files = [*node.server.folder.rglob("*before-*"), *(node.root / "journal").glob("before-*")]
    return sorted([*(each.name for each in files), *(each.module_name for each in notes)])


@both
def test_no_data_from_before_are_left_of_an_operation_that_is_undone(replica, built):
    assert replica.restart(built("keeps", 2), commands=("keeps.missing",)).phase is Phase.FAILED
    assert replica.server.loaded() == [("keeps", 1)]
    assert data_before(replica) == []


def test_nor_of_other_files_of_the_same_version(replica, built, repack, control):
    assert replica.restart(repack(built("keeps", 1))).phase is Phase.SUCCEEDED
    assert data_before(replica) == ["dump.rdb.before-keeps-1", "keeps"]
    control.withhold = control.keep_data = False
    assert data_before(replica) == []


def test_nor_after_a_removal(replica, built):
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    assert data_before(replica)
    assert replica.remove(built("keeps", 2), way=Way.RESTART, even_if_used=True).phase is Phase.SUCCEEDED
    assert data_before(replica) == []


def test_nor_without_an_identity(node, built):
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    assert node.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    assert data_before(node)  # the control plane cannot be asked
    assert node.remove(built("keeps", 2), way=Way.RESTART, even_if_used=True).phase is Phase.SUCCEEDED
    assert data_before(node) == []


def test_data_that_cannot_be_deleted(replica, built, control):
    """The server's user has put a directory in their place. The replica may become the master nevertheless."""
    assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
    link = replica.server.folder / "dump.rdb.before-keeps-2"
    link.unlink()
    link.mkdir()
    control.withhold = control.keep_data = False
    beat(replica)
    assert priority(replica.server) == "100"
    assert data_before(replica) == ["dump.rdb.before-keeps-2", "keeps"]
    link.rmdir()
    assert data_before(replica) == []
    assert is_over(replica)


def test_left_data_that_cannot_be_deleted(replica, built, control):
    """Those of an operation that was undone; another one is asked about nevertheless."""
    assert replica.restart(built("keeps", 2), commands=("keeps.missing",)).phase is Phase.FAILED
    link = replica.server.folder / "dump.rdb.before-keeps-2"
    link.unlink()
    link.mkdir()
    assert data_before(replica)
    replica.runner.node.holds.begin(Hold(rollout="r1", module_name="keeps", version=1))
    assert priority(replica.server) == "0"
    control.withhold = control.keep_data = False
    beat(replica)
    assert priority(replica.server) == "100"
    link.rmdir()
    assert data_before(replica) == []


def test_a_damaged_file(replica, built):
    """It is not known what was held: the server counts as withheld, and nothing is restarted."""
    run_id = replica.server.run_id
    (replica.root / "journal/.withheld.json").write_text("{")
    assert beat(replica)
    report = replica.restart(built("keeps", 2))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.IO_ERROR), report
    assert replica.server.run_id == run_id


@both
def test_sentinel_does_not_choose_it(replica, other, built, control, short_folder, binary):
    """The master dies, and the replica with the former version takes over; without us, Sentinel would choose the other one."""
    third = Machine("third", short_folder / "t", binary, extra=("replica-priority 90",))
    third.start()
    try:
        third.call("MODULE", "LOAD", str(replica.server.modules / "keeps/1/keeps.so"))
        other.call("MODULE", "LOAD", str(replica.server.modules / "keeps/1/keeps.so"))
        third.follow(other)
        wait_for(lambda: third.is_in_step(other))
        replica.server.call("CONFIG", "SET", PRIORITY, 10)  # the one with the least number is chosen
        assert replica.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
        other.call_each(("KEEPS.SET", f"key{number}", number) for number in range(1000))
        wait_for(lambda: all(each.is_in_step(other) for each in (replica.server, third)))
        with sentinel(short_folder, other) as watcher:
            wait_for(lambda: len(watcher.call("SENTINEL", "REPLICAS", "main")) == 2)
            wait_for(lambda: _seen(watcher, replica.server) == "0")
            watcher.call("SENTINEL", "SET", "main", "down-after-milliseconds", 300)
            other.stop()
            wait_for(lambda: int(watcher.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1]) == third.port)
            wait_for(lambda: replica.server.master_port() == third.port and replica.server.is_in_step(third))
        assert kept(replica) == 1000
    finally:
        other.start()
        third.stop()


def _seen(watcher: Machine, machine: Machine) -> str:
    found = [each if isinstance(each, dict) else _pairs(each) for each in watcher.call("SENTINEL", "REPLICAS", "main")]
    return next(str(each["slave-priority"]) for each in found if str(each["port"]) == str(machine.port))


def _pairs(words):
    return dict(zip(words[::2], words[1::2], strict=True))


@both
def test_a_cluster_does_not_choose_it(node, other, built, control, short_folder, binary):
    """The master dies, and its replica does not take over before the control plane says so."""
    masters = [other, *(Machine(name, short_folder / name, binary).start() for name in ("m2", "m3"))]
    machines = [node.server, *masters]
    try:
        for each in machines:
            lines = f"cluster-enabled yes\ncluster-node-timeout 1000\ncluster-port {free_port()}\n"
            each.file.write_text(f"{each.file.read_text()}{lines}")
            each.restart()
        for number, each in enumerate(masters):
            each.call("CLUSTER", "ADDSLOTSRANGE", *((0, 5460), (5461, 10922), (10923, 16383))[number])
            each.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for each in machines[:-1]:
            bus = masters[-1].call("CONFIG", "GET", "cluster-port")[1]
            each.call("CLUSTER", "MEET", "127.0.0.1", masters[-1].port, bus)
        wait_for(lambda: all("cluster_known_nodes:4" in each.call("CLUSTER", "INFO") for each in machines))
        wait_for(lambda: all("cluster_state:ok" in each.call("CLUSTER", "INFO") for each in machines))
        node.server.call("CLUSTER", "REPLICATE", other.call("CLUSTER", "MYID"))
        wait_for(lambda: node.server.info("replication").get("master_link_status") == "up")
        assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
        assert node.restart(built("keeps", 2)).phase is Phase.SUCCEEDED
        assert node.server.call("CONFIG", "GET", NO_FAILOVER)[1] == "yes"
        assert priority(node.server) == "100"
        other.stop()
        wait_for(lambda: "cluster_state:fail" in node.server.call("CLUSTER", "INFO"))
        assert node.server.info("replication")["role"] == "slave"
        control.withhold = control.keep_data = False
        beat(node)
        wait_for(lambda: node.server.info("replication")["role"] == "master")
        assert node.server.call("CONFIG", "GET", NO_FAILOVER)[1] == "no"
        assert is_over(node)
        other.start()
    finally:
        for each in masters[1:]:
            each.stop()
