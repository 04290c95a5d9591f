"""A replica becomes the master, and no write that was acknowledged is lost. Real servers, Sentinels and clients."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel as SentinelClient

from rollout.agent.doctor import run_doctor
from rollout.agent.doctor.acl import Level, acl_rules
from rollout.agent.failover.failover import FailedOver, check, fail_over, settle
from rollout.agent.failover.sentinel import HOLD_SECONDS, SEEN_SECONDS, Sentinel
from rollout.agent.failover.shard import Failover, FailoverNotPossibleError
from rollout.agent.operations.runner import Runner
from rollout.agent.restart.held import Held
from rollout.agent.server.session import Server
from rollout.agent.settings import settings_from
from rollout.messages import RETURNING, Action, Reason
from tests.authority import Authority
from tests.integration.agent.conftest import ROOT, SERVERS, Valkey
from tests.integration.agent.shards import both, started
from tests.ports import free_port
from tests.shards import ADDRESS, Machine, sentinel
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

WAYS = ("sentinel", "command", "cluster")


def in_turn(*cases: tuple[Any, ...]) -> list[Any]:
    """Each case with one of the servers, one after the other; with the other one too in the full run."""
    return [
        pytest.param(binary, *case, marks=() if binary == SERVERS[number % 2] else pytest.mark.full)
        for number, case in enumerate(cases)
        for binary in SERVERS
    ]


PASSWORD = "secret"
#: Of the agent's user at the Sentinels, as the docs say it.
(SENTINEL_RIGHTS,) = re.findall(r"`(\+auth [^`]*\+sentinel\|[^`]*)`", (ROOT / "docs/howto/restarts.md").read_text())
#: A write that the server does not accept at once waits for the end of a pause, seconds.
AT_ONCE = 1.0

#: An agent that kills itself after so many commands that change something, and then so many seconds.
DIES = """
import os, signal, sys, time
from pathlib import Path
import msgspec
from rollout.agent.doctor import run_doctor
from rollout.agent.doctor.acl import Level, acl_rules
from rollout.agent.failover.failover import fail_over
from rollout.agent.server.session import Server, Session
from rollout.agent.settings import settings_from

CHANGES = {"CLIENT", "REPLICAOF", "FAILOVER", "CLUSTER FAILOVER", "CONFIG REWRITE", "SENTINEL FAILOVER"}
last, seconds, note, *candidates = sys.argv[1:]
done, queues = [], set()

def call(session, *words, former=Session.call):
    if words == ("MULTI",):
        queues.add(session)
    answer = former(session, *words)
    if session not in queues and {words[0], " ".join(words[:2])} & CHANGES:
        done.append(words)
        if len(done) == int(last):
            time.sleep(float(seconds))
            os.kill(os.getpid(), signal.SIGKILL)
    return answer

Session.call = call
settings = settings_from(os.environ)
keep = lambda failover: Path(note).write_bytes(msgspec.json.encode(failover))
fail_over(Server(settings), settings, candidates, keep)
"""


@dataclass
class Servers:
    """The agent's server `a`, a master with the replicas `b` and `c`. `others`: masters of the same cluster."""

    folder: Path
    binary: Path
    machines: Sequence[Machine]
    environ: dict[str, str]
    address: str = ADDRESS
    others: list[Machine] = field(default_factory=list)
    watcher: Machine | None = None

    @property
    def candidates(self) -> list[str]:
        return [f"{self.address}:{each.port}" for each in self.machines[1:]]

    @property
    def settings(self):
        return settings_from(self.environ)

    def fail_over(
        self,
        keep: Callable[[Failover], object] = lambda _: None,
        *,
        candidates: Sequence[str] = (),
        limit: float = 5.0,
        target: str = "",
    ) -> FailedOver:
        return fail_over(Server(self.settings), self.settings, candidates or self.candidates, keep, limit, target)

    def refusal(
        self,
        keep: Callable[[Failover], object] = lambda _: None,
        *,
        begin: Callable[[], object] = lambda: None,
        **changes,
    ) -> str:
        """The message of a failover that is not possible. The shard is as before `begin`, and its clients write."""
        before = [(each.run_id, each.master_port()) for each in self.machines]
        begin()
        with pytest.raises(FailoverNotPossibleError) as caught:
            self.fail_over(keep, **changes)
        assert caught.value.reason is Reason.FAILOVER_NOT_POSSIBLE
        self.writes_at_once()
        for each in self.machines[1:]:
            assert each.process
            each.process.send_signal(signal.SIGCONT)
        wait_for(lambda: [(each.run_id, each.master_port()) for each in self.machines] == before)
        return caught.value.message

    def writes_at_once(self) -> None:
        master = next(each for each in self.machines if not each.master_port())
        with redis.Redis(
            unix_socket_path=str(master.socket), socket_timeout=AT_ONCE, retry=Retry(NoBackoff(), 0)
        ) as client:
            client.set(self.key, "")

    @property
    def key(self) -> str:
        """In a slot of the first master of a cluster."""
        return "{b}at once"  # slot 3300

    def stop_replicas(self, _: object = None) -> None:
        for each in self.machines[1:]:
            assert each.process
            each.process.send_signal(signal.SIGSTOP)

    def new_master(self) -> Machine:
        """The only master, which all others follow."""

        def found() -> Machine | None:
            masters = [each for each in self.machines if not each.master_port()]
            follows = {each.master_port() for each in self.machines} - {0}
            is_one = len(masters) == 1 and follows == {masters[0].port}
            return masters[0] if is_one and all(each.is_in_step(masters[0]) for each in self.machines) else None

        master = wait_for(found, state=lambda: [each.info("replication") for each in self.machines])
        assert master
        if self.others:
            wait_for(lambda: all(each.call("CLUSTER INFO")["cluster_state"] == "ok" for each in self.machines))
        return master


@pytest.fixture
def way() -> str:
    return "sentinel"


@pytest.fixture
def shard(short_folder, binary, way) -> Iterator[Servers]:
    with ExitStack() as stack:
        machines = [Machine(name, short_folder / name, binary) for name in "abcd"[: 4 if way == "cluster" else 3]]
        for each in machines:
            if way == "cluster":
                in_cluster(each)
            each.start()
            stack.callback(each.stop)
        a, b, c, *others = machines
        environ = {
            "MODFLEET_NODE": "n1",
            "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
            "MODFLEET_CONTROL_URL": "https://control",
            "MODFLEET_SERVER_URL": f"unix://{a.socket}",
            "MODFLEET_MODULES_DIR": str(short_folder / "modules"),
            "MODFLEET_JOURNAL_DIR": str(short_folder / "journal"),
            "MODFLEET_FAILOVER": way,
            "MODFLEET_PERSISTENCE": "rewrite",
            "MODFLEET_SERVER_USER": "agent",
            "MODFLEET_SERVER_PASSWORD_FILE": str(short_folder / "password"),
        }
        (short_folder / "password").write_text(PASSWORD)
        for each in machines:
            each.call("ACL", "SETUSER", "agent", "on", f">{PASSWORD}", *acl_rules(Level.RESTART).split())
            each.call("CONFIG", "REWRITE")
        made = Servers(short_folder, binary, (a, b, c), environ, others=others)
        if way == "cluster":
            made.address = "127.0.0.1"
            join(a, b, c, *others)
        else:
            for each in (b, c):
                each.follow(a)
                each.call("CONFIG", "REWRITE")
        wait_for(lambda: all(each.is_in_step(a) for each in (b, c)) and is_complete(made))
        if way == "sentinel":
            made.watcher = watcher = stack.enter_context(sentinel(short_folder, a))
            watch(made, watcher)
            made.environ["MODFLEET_SENTINEL_MASTER"] = "main"
            wait_for(
                lambda: len(known(watcher)) == 2 and all(each["slave-priority"] == "100" for each in known(watcher))
            )
            wait_for(lambda: all(each["master-link-status"] == "ok" for each in known(watcher)))
        yield made


def watch(shard: Servers, watcher: Machine) -> None:
    """Let the agent ask this Sentinel too, after the others."""
    watcher.call("ACL", "SETUSER", "agent", "on", f">{PASSWORD}", "-@all", *SENTINEL_RIGHTS.split())
    urls = json.loads(shard.environ.get("MODFLEET_SENTINEL_URLS", "[]"))
    shard.environ["MODFLEET_SENTINEL_URLS"] = json.dumps([*urls, f"redis://agent:{PASSWORD}@127.0.0.1:{watcher.port}"])


def is_complete(shard: Servers) -> bool:
    info = shard.machines[0].info("replication")
    return [info.get(f"slave{each}", {}).get("state") for each in (0, 1)] == ["online"] * 2


def known(watcher: Machine) -> list[dict[str, str]]:
    """The replicas, as the Sentinel knows them."""
    return [fields(each) for each in watcher.call("SENTINEL", "REPLICAS", "main")]


def fields(answer: Sequence[str]) -> dict[str, str]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def in_cluster(machine: Machine) -> None:
    machine.folder.mkdir(parents=True)
    lines = [
        f"port {machine.port}",
        f"unixsocket {machine.socket}",
        f"dir {machine.folder}",
        f"logfile {machine.folder}/log",
        "cluster-enabled yes",
        f"cluster-port {free_port()}",
        "repl-diskless-sync-delay 0",
    ]
    machine.file.write_text("".join(f"{line}\n" for line in lines))


def join(a: Machine, b: Machine, c: Machine, d: Machine) -> None:
    """`a` and `d` have half of the slots each. `b` and `c` are replicas of `a`."""
    bus = a.call("CONFIG", "GET", "cluster-port")[1]
    for each in (b, c, d):
        each.call("CLUSTER", "MEET", "127.0.0.1", a.port, bus)
    a.call("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    d.call("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    every = (a, b, c, d)
    wait_for(lambda: all(each.call("CLUSTER INFO")["cluster_known_nodes"] == "4" for each in every))
    wait_for(lambda: all(each.call("CLUSTER INFO")["cluster_state"] == "ok" for each in every))
    for each in (b, c):
        each.call("CLUSTER", "REPLICATE", a.call("CLUSTER", "MYID"))
    # A master that does not know whose replica a server is does not vote for it.
    wait_for(lambda: [each.call("CLUSTER", "NODES").count("slave") for each in every] == [2] * 4)


class Writers:
    """Clients that write from the start of the block to its end, and know which writes were acknowledged: one that is connected to
    one server after the other until that accepts its writes, and one of the kind that the way has."""

    def __init__(self, shard: Servers, way: str) -> None:
        self.acknowledged: dict[str, int] = {}
        #: The longest time between two acknowledged writes, seconds.
        self.stall = 0.0
        self._shard = shard
        self._ends = threading.Event()
        writers = {"plain": self._plain}
        if way != "command":
            writers[way] = self._sentinel if way == "sentinel" else self._cluster
        self._done = dict.fromkeys(writers, 0)
        self._threads = [threading.Thread(target=each) for each in writers.values()]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for each in self._threads:
            each.join()

    def wait_for_more(self) -> None:
        """Wait until each of them has written 100 keys more."""
        before = dict(self._done)
        wait_for(lambda: all(self._done[each] >= before[each] + 100 for each in before))

    def lost(self) -> list[str]:
        """The keys whose acknowledged values the new master does not have."""
        master = self._shard.new_master()
        keys = list(self.acknowledged)
        with redis.Redis(unix_socket_path=str(master.socket)) as client:
            found = dict(zip(keys, client.mget(keys), strict=True))
        return [key for key, value in self.acknowledged.items() if found[key] != b"%d" % value]

    def _write(self, name: str, client: "redis.Redis", number: int) -> None:
        key = f"{{b}}{name}{number}"
        client.set(key, number)
        self.acknowledged[key] = number
        self._done[name] += 1

    def _write_all(self, name: str, write: Callable[[int], None]) -> None:
        last, number = time.monotonic(), 0
        while not self._ends.wait(0.0005):
            number += 1
            with suppress(redis.RedisError):
                write(number)
                self.stall = max(self.stall, time.monotonic() - last)
                last = time.monotonic()

    def _plain(self) -> None:
        clients = [
            redis.Redis(port=each.port, retry=Retry(NoBackoff(), 0), socket_timeout=60) for each in self._shard.machines
        ]
        now = 0

        def write(number: int) -> None:
            nonlocal now
            try:
                self._write("plain", clients[now], number)
            except redis.RedisError:
                now = (now + 1) % len(clients)
                raise

        self._write_all("plain", write)
        for each in clients:
            each.close()

    def _sentinel(self) -> None:
        assert self._shard.watcher
        watching = SentinelClient([("127.0.0.1", self._shard.watcher.port)], socket_timeout=60)
        client = watching.master_for("main", retry=Retry(NoBackoff(), 0))
        self._write_all("sentinel", lambda number: self._write("sentinel", client, number))
        client.close()
        for each in watching.sentinels:
            each.close()

    def _cluster(self) -> None:
        with redis.RedisCluster(host="127.0.0.1", port=self._shard.machines[0].port, socket_timeout=60) as client:
            self._write_all("cluster", lambda number: self._write("cluster", client, number))


@pytest.mark.parametrize("way", WAYS)
@both
def test_no_acknowledged_write_is_lost(shard, way, capsys):
    a, *replicas = shard.machines
    kept: list[Failover] = []
    with Writers(shard, way) as writers:
        done = shard.fail_over(kept.append)
        writers.wait_for_more()
    new = shard.new_master()
    words = f"stall {done.stall_seconds:.2f} s, for clients {writers.stall:.2f} s, {len(writers.acknowledged):,} writes"
    with capsys.disabled():
        print(f"\n{shard.binary.name}, {way}: {words}")  # noqa: T201 - the docs give these
    assert new in replicas
    assert (done.was, done.now) == (f"{shard.address}:{a.port}", f"{shard.address}:{new.port}")
    assert (done.way, done.remarks, 0 < done.stall_seconds < 5) == (way, (), True)
    assert writers.lost() == []
    assert [sorted(each.candidates) for each in kept] == [sorted(shard.candidates)]
    shard.writes_at_once()
    for each in shard.machines:  # each starts in the role that it has now
        each.restart()
    assert shard.new_master() is new
    assert writers.lost() == []


def test_it_counts_as_no_failure():
    assert Reason.FAILOVER_NOT_POSSIBLE in RETURNING


def stranger(shard):
    return shard.refusal(candidates=shard.candidates[:1])


def absent(shard):
    return shard.refusal(candidates=[*shard.candidates, f"{shard.address}:1"])


def behind(shard):
    def hold_up():
        shard.stop_replicas()
        shard.machines[0].call("SET", shard.key, "x" * 1000)

    return shard.refusal(begin=hold_up, limit=0.00001)


def none(shard):
    shard.environ["MODFLEET_FAILOVER"] = "none"
    return shard.refusal()


def not_a_cluster(shard):
    shard.environ["MODFLEET_FAILOVER"] = "cluster"
    return shard.refusal()


def no_rights(shard):
    """Of the agent's user at its own server."""
    shard.machines[0].call("ACL", "SETUSER", "agent", "-client|pause", "-failover", "-config|rewrite")
    return shard.refusal()


def no_sentinel(shard):
    shard.environ["MODFLEET_SENTINEL_URLS"] = json.dumps(["redis://127.0.0.1:1"])
    return shard.refusal()


def another_name(shard):
    shard.environ["MODFLEET_SENTINEL_MASTER"] = "other"
    return shard.refusal()


def fewer_rights_at_sentinel(shard):
    shard.watcher.call("ACL", "SETUSER", "agent", "-sentinel|reset")
    return shard.refusal()


def two_masters(shard):
    """Another Sentinel watches one of the replicas under the same name."""
    with sentinel(shard.folder, shard.machines[1], name="second") as second:
        watch(shard, second)
        return shard.refusal()


def another_master(shard):
    """The agent's own server is a master, but not the one of that name."""
    shard.watcher.call("SENTINEL", "MONITOR", "other", ADDRESS, shard.machines[1].port, 1)
    shard.environ["MODFLEET_SENTINEL_MASTER"] = "other"
    return shard.refusal()


def no_quorum(shard):
    shard.watcher.call("SENTINEL", "SET", "main", "quorum", 2)
    return shard.refusal()


def no_priority(shard):
    for each in shard.machines[1:]:
        each.call("CONFIG", "SET", "replica-priority", 0)
    if shard.watcher:
        wait_for(lambda: [each["slave-priority"] for each in known(shard.watcher)] == ["0", "0"])
    return shard.refusal()


def in_progress(shard):
    with failing_over(shard), pytest.raises(FailoverNotPossibleError) as caught:
        shard.fail_over()
    return caught.value.message


@contextmanager
def failing_over(shard):
    """Sentinel waits for a replica that does not answer."""
    shard.stop_replicas()
    words = ["COORDINATED"] if shard.binary == SERVERS[0] else []
    shard.watcher.call("SENTINEL", "FAILOVER", "main", *words)
    try:
        yield
    finally:
        shard.watcher.call("SENTINEL", "RESET", "main")
        shard.machines[0].call("CLIENT", "UNPAUSE")
        if words:
            with suppress(redis.ResponseError):
                shard.machines[0].call("FAILOVER", "ABORT")


def watched(shard):
    with sentinel(shard.folder, shard.machines[0]):
        wait_for(lambda: shard.machines[0].call("PUBSUB", "NUMSUB", "__sentinel__:hello")[1] == 1)
        return shard.refusal()


def no_file(shard):
    """One of the replicas was started with options only."""
    port = free_port()
    options = (
        "--port",
        str(port),
        "--replicaof",
        f"{ADDRESS} {shard.machines[0].port}",
        "--replica-announce-ip",
        ADDRESS,
    )
    with started(Valkey(shard.folder / "options", binary=shard.binary, aof="no", options=options)) as last:
        last.call("ACL", "SETUSER", "agent", "on", f">{PASSWORD}", *acl_rules(Level.RESTART).split())
        wait_for(lambda: last.call("INFO", "replication")["master_link_status"] == "up")
        wait_for(lambda: str(shard.machines[0].info("replication")).count("online") == 3)
        return shard.refusal(candidates=[*shard.candidates, f"{ADDRESS}:{port}"])


def another_password(shard):
    shard.machines[2].call("ACL", "SETUSER", "agent", "resetpass", ">another")
    return shard.refusal()


def fewer_rights(shard):
    shard.machines[2].call("ACL", "SETUSER", "agent", "-replicaof")
    return shard.refusal()


def no_replica_may(shard):
    for each in shard.machines[1:]:
        each.call("CONFIG", "SET", "cluster-replica-no-failover", "yes")
    return shard.refusal()


def cluster_down(shard):
    shard.machines[0].call("CLUSTER", "DELSLOTS", 0)
    with pytest.raises(FailoverNotPossibleError) as caught:
        shard.fail_over()
    return caught.value.message


def shorter(shard):
    return shard.refusal(limit=4.0)


@pytest.mark.parametrize(
    ("binary", "way", "make", "words"),
    in_turn(
        ("sentinel", none, "MODFLEET_FAILOVER is none"),
        ("sentinel", stranger, "was not checked"),
        ("sentinel", absent, "is not online"),
        ("sentinel", behind, "MB behind"),
        ("sentinel", not_a_cluster, "must be cluster for servers of a cluster"),
        ("sentinel", no_rights, "may not call CLIENT PAUSE, FAILOVER, CONFIG REWRITE at"),
        ("sentinel", no_sentinel, "Sentinel 127.0.0.1:1 cannot be asked"),
        ("sentinel", another_name, "No such master with that name"),
        ("sentinel", fewer_rights_at_sentinel, "may not call SENTINEL RESET at Sentinel"),
        ("sentinel", two_masters, "name different masters"),
        ("sentinel", another_master, "Check MODFLEET_SENTINEL_MASTER"),
        ("sentinel", no_quorum, "NOQUORUM"),
        ("sentinel", no_priority, "another replica-priority than 0"),
        ("sentinel", in_progress, "Sentinel fails over already"),
        ("command", watched, "Set MODFLEET_FAILOVER=sentinel"),
        ("command", no_rights, "may not call FAILOVER, CONFIG REWRITE at"),
        ("command", no_file, "has no configuration file"),
        ("command", another_password, "needs a connection to the replica"),
        ("command", fewer_rights, "may not call REPLICAOF at"),
        ("command", no_priority, "replica-priority 0"),
        ("cluster", no_replica_may, "cluster-replica-no-failover"),
        ("cluster", cluster_down, "state of the cluster is fail"),
        ("cluster", shorter, "may pause .* for 5 s"),
    ),
)
def test_a_failover_that_is_refused(shard, make, words):
    assert re.search(words, make(shard))


@pytest.mark.parametrize("way", WAYS)
@both
def test_a_replica_that_hangs(shard, way):
    """It hangs after the checks. The pause ends, also in Sentinel, and the next failover succeeds."""
    if way == "cluster":  # without the other master, there is no majority of votes
        message = shard.refusal(lambda _: shard.others[0].process.send_signal(signal.SIGSTOP))
        shard.others[0].process.send_signal(signal.SIGCONT)
        assert "has not taken over within 5 s" in message
    else:
        assert "within 2 s" in shard.refusal(shard.stop_replicas, limit=2.0)
    done = wait_for(lambda: succeeds(shard))
    assert shard.new_master().port == int(done.now.rpartition(":")[2])


def succeeds(shard, **changes):
    try:
        return shard.fail_over(**changes)
    except FailoverNotPossibleError:
        return None


@both
def test_replicas_that_do_not_catch_up(shard, binary):
    """The server is not paused for longer than the limit. Sentinel of Redis was not asked yet."""

    def hold_up(_):
        shard.stop_replicas()
        shard.machines[0].call("SET", shard.key, "x" * 1000)

    message = shard.refusal(hold_up, limit=2.0)
    assert ("have not caught up" if binary == SERVERS[1] else "has not failed over") in message
    assert "failover_in_progress" not in shard.watcher.call("SENTINEL", "MASTER", "main")[9]


@both
def test_sentinel_sees_the_new_master_after_the_limit(shard):
    """The replica is the master already, so the failover goes on."""
    with Writers(shard, "sentinel") as writers:
        # A replica acknowledges once a second, and Sentinel asks it once a second.
        done = wait_for(lambda: succeeds(shard, limit=1.0))
        writers.wait_for_more()
    assert done.stall_seconds < 1.0 + SEEN_SECONDS
    assert writers.lost() == []


@both
def test_a_sentinel_that_cannot_be_reached(shard):
    """The next one is asked, and the result says so."""
    urls = json.loads(shard.environ["MODFLEET_SENTINEL_URLS"])
    shard.environ["MODFLEET_SENTINEL_URLS"] = json.dumps([f"redis://agent:{PASSWORD}@127.0.0.1:1", *urls])
    done = shard.fail_over()
    assert "Sentinel 127.0.0.1:1 cannot be asked" in " ".join(done.remarks)
    assert PASSWORD not in " ".join(done.remarks)
    assert shard.new_master() in shard.machines[1:]


@both
@pytest.mark.parametrize("way", ["sentinel"])
def test_another_name_of_the_same_server_is_no_other_master(shard, way):
    """As after a change of announce-hostnames. A server that follows itself would refuse each write."""
    a, *_ = shard.machines
    kept = check(Server(shard.settings), shard.settings, shard.candidates)
    shard.watcher.call("SENTINEL", "CONFIG", "SET", "announce-hostnames", "no")
    named = shard.watcher.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
    assert f"{named[0]}:{named[1]}" != kept.was
    assert settle(Server(shard.settings), shard.settings, kept) is None
    assert a.master_port() == 0
    shard.writes_at_once()


@both
def test_three_sentinels(shard):
    """The first one fails over, and a majority of them must agree."""
    a, *_ = shard.machines
    with ExitStack() as stack:
        others = [stack.enter_context(sentinel(shard.folder, a, name=name, quorum=2)) for name in ("second", "third")]
        for each in others:
            watch(shard, each)
        shard.watcher.call("SENTINEL", "SET", "main", "quorum", 2)
        every = [shard.watcher, *others]
        wait_for(lambda: [len(known(each)) for each in every] == [2] * 3)
        wait_for(
            lambda: all(fields(each.call("SENTINEL", "MASTER", "main"))["num-other-sentinels"] == "2" for each in every)
        )
        with Writers(shard, "sentinel") as writers:
            done = shard.fail_over()
            writers.wait_for_more()
        assert writers.lost() == []
        named = [[done.now.partition(":")[0], done.now.partition(":")[2]]] * 3
        wait_for(lambda: [each.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main") for each in every] == named)


@both
def test_sentinel_makes_a_replica_the_master_at_the_limit(shard, monkeypatch):
    """Directly before its failover ends by RESET. Clients do not know this master, and it becomes a replica again."""
    _, b, _ = shard.machines
    began: list[bool] = []

    def ask(asked, word, *words, former=Sentinel.ask):
        if word == "FAILOVER":
            return "OK"  # Sentinel waits
        if word == "RESET":
            b.follow(None)
        return former(asked, word, *words)

    monkeypatch.setattr(Sentinel, "ask", ask)
    monkeypatch.setattr(Sentinel, "fails_over", lambda _: began)
    assert "has not failed over" in shard.refusal(lambda _: began.append(True), limit=0.5)


@both
@pytest.mark.parametrize("way", ["command"])
def test_the_agent_and_its_server_are_killed(shard):
    """The server starts as a master, as its file says, but there is another one already."""
    a, *_ = shard.machines
    with Writers(shard, "command") as writers:
        kept = dies(shard, 1, 0.5)
        wait_for(a.master_port)
        writers.wait_for_more()
    a.die(signal.SIGKILL)
    assert a.master_port() == 0
    done = settle(Server(shard.settings), shard.settings, kept)
    assert done
    assert done.now == kept.target
    assert writers.lost() == []


@pytest.mark.parametrize(("way", "binary"), [("command", SERVERS[1])])  # that of the wheel has no TLS
def test_over_tls(shard):
    """The agent connects to the replicas as to its own server. With a socket there, it does not know whom to trust."""
    authority = Authority(shard.folder / "tls")
    certificate, key, ca = map(str, (*authority.issue("server", "127.0.0.1"), authority.certificate))
    ports = [free_port() for _ in shard.machines]
    for each, port in zip(shard.machines, ports, strict=True):
        files = ("tls-cert-file", certificate, "tls-key-file", key, "tls-ca-cert-file", ca)
        each.call("CONFIG", "SET", *files, "tls-auth-clients", "no", "tls-port", port)
        each.call("CONFIG", "SET", "tls-replication", "yes", "replica-announce-ip", "127.0.0.1")
        each.call("CONFIG", "SET", "replica-announce-port", port)
        each.follow(None)
    a, *replicas = shard.machines
    for each in replicas:
        each.call("REPLICAOF", "127.0.0.1", ports[0])
    wait_for(lambda: all(each.is_in_step(a) for each in replicas) and is_complete(shard))
    candidates = [f"127.0.0.1:{port}" for port in ports[1:]]
    with pytest.raises(FailoverNotPossibleError, match="certificate is not trusted"):
        shard.fail_over(candidates=candidates)

    shard.environ["MODFLEET_SERVER_URL"] = f"rediss://127.0.0.1:{ports[0]}"
    shard.environ["MODFLEET_SERVER_CA"] = ca
    done = shard.fail_over(candidates=candidates)
    assert (done.was, done.now in candidates, done.remarks) == (f"127.0.0.1:{ports[0]}", True, ())
    assert sorted(each.master_port() for each in shard.machines) == [0, *[int(done.now.rpartition(":")[2])] * 2]


def dies(shard, step, seconds=0.0):
    """Fail over in an agent that is killed. Return what it has kept, None if it did not come to this step."""
    note = shard.folder / "note"
    words = [sys.executable, "-c", DIES, str(step), str(seconds), note, *shard.candidates]
    done = subprocess.run(words, env=os.environ | shard.environ, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return msgspec.json.decode(note.read_bytes(), type=Failover) if done.returncode else None


@pytest.mark.parametrize(
    ("binary", "way", "step", "seconds"),
    [
        *((binary, "sentinel", step, 0) for binary in SERVERS for step in range(1, 6)),
        (SERVERS[0], "sentinel", 1, 0.4),  # Sentinel of Valkey fails over meanwhile
        (SERVERS[1], "sentinel", 2, 0.4),  # that of Redis does
        *in_turn(*(("command", step, 0) for step in range(1, 6)), ("cluster", 1, 0)),
    ],
)
def test_the_agent_is_killed(shard, way, step, seconds):
    """Directly after one of its changes, or so many seconds later."""
    a, *_ = shard.machines
    with Writers(shard, way) as writers:
        kept = dies(shard, step, seconds)
        if kept is None:  # there are fewer steps
            assert (shard.binary, way, step > 3) == (SERVERS[0], "sentinel", True)
        else:
            done = settle(Server(shard.settings), shard.settings, kept)
            assert (done is None) is (a.master_port() == 0)
            again = settle(Server(shard.settings), shard.settings, kept)  # as after another kill
            assert (again and again.now) == (done and done.now)
        writers.wait_for_more()
    assert writers.lost() == []
    shard.writes_at_once()
    new = shard.new_master()
    for each in shard.machines:
        each.restart()
    assert shard.new_master() is new


@both
def test_the_next_agent_settles_it_at_its_start(shard):
    """Before any command comes again."""
    settings = shard.settings
    runner = Runner(settings)
    with Writers(shard, "sentinel") as writers:
        kept = dies(shard, 1 if shard.binary == SERVERS[0] else 2)
        held = Held(
            rollout="r1",
            module_name="keeps",
            version=2,
            generation=2,
            action=Action.INSTALL,
            run_id=kept.run_id,
            way="shutdown",
            unit="",
            failover=kept,
        )
        runner.node.maintenance.held.write(held)
        runner.recover()
        shard.writes_at_once()
        writers.wait_for_more()
    assert writers.lost() == []
    found = runner.node.maintenance.held.read()
    assert found
    assert found.failed_over
    assert found.failed_over.was == kept.was
    assert shard.new_master().port == int(found.failed_over.now.rpartition(":")[2])


@pytest.mark.full
@pytest.mark.parametrize("down_after", [5_000, 30_000])
@both
def test_the_agent_is_killed_and_does_not_come_back(shard, down_after):
    """Sentinel makes the former master a replica, at the latest in the moment in which the pause ends."""
    a, *_ = shard.machines
    shard.watcher.call("SENTINEL", "SET", "main", "down-after-milliseconds", down_after)
    with Writers(shard, "sentinel") as writers:
        kept = dies(shard, 1 if shard.binary == SERVERS[0] else 2)
        wait_for(a.master_port)
        assert time.time() < kept.began + kept.limit + HOLD_SECONDS + 1
        writers.wait_for_more()
    assert writers.lost() == []


@both
def test_the_doctor_says_if_it_is_possible(shard):
    assert check_failover(shard) == ("pass", "A replica can become the master: MODFLEET_FAILOVER is sentinel.", "")
    shard.watcher.call("SENTINEL", "SET", "main", "quorum", 2)
    status, _, fix = check_failover(shard)
    assert (status, "NOQUORUM" in fix) == ("warn", True)
    shard.environ["MODFLEET_SERVER_URL"] = f"unix://{shard.machines[1].socket}"
    assert check_failover(shard)[:2] == ("pass", "Not needed now: the server is no master with replicas.")
    shard.environ["MODFLEET_FAILOVER"] = "none"
    assert check_failover(shard)[0] == "pass"


@both
def test_what_passes_by_itself_is_no_warning(shard):
    """A rollout would skip the master for it, long after it has passed."""
    with failing_over(shard):
        assert check_failover(shard) == ("unknown", "Sentinel fails over already. Wait until it has ended.", "")


def check_failover(shard):
    (found,) = [each for each in run_doctor(shard.settings) if each.check == "failover"]
    return found.status, found.message, found.fix
