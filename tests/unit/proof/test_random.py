"""Random histories of lists that are right are clean, and one changed entry is always found."""

from dataclasses import dataclass, field
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modfleet.proof.history import Kind, Way
from tests.unit.proof.builder import Keys, Proof

SEEDS = st.integers(0, 2**32)
FAST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class Servers:
    """A master `s` with a replica `r`, which restart and fail over all the time, and one client for each of three keys."""

    proof: Proof
    random: Random
    now: float = 1.0
    keys: Keys = field(default_factory=dict)
    #: Attempts that were sent on a connection that ended since: they may still be executed.
    late: list[tuple[str, int]] = field(default_factory=list)

    def run(self) -> None:
        clients = [self.client(f"client{number}") for number in range(3)]
        for client in clients:
            next(client)
        for _ in range(40):
            next(self.random.choice(clients))
        for client in clients:
            client.close()
        self.proof.change(0.0, self.now, way=Way.RESTART, action="restart", servers=("s", "r"))
        self.proof.server("s", self.keys)
        self.proof.server("r", self.keys, master="s")

    def client(self, name: str):
        key, entry = f"key-{name}", 0
        self.proof.get(self.tick(), client=name, key=key)
        yield
        while True:
            if self.random.random() < 0.3:
                self.proof.get(self.tick(), *self.keys.get(key, ()), client=name, key=key)
            else:
                entry += 1
                yield from self.add(name, key, entry)
            yield

    def add(self, name: str, key: str, entry: int):
        attempt = 1
        while self.random.random() < 0.3:
            error = self.random.choice(
                ["READONLY", "LOADING", "MOVED 1 host:1", "closed: reset by peer", "timeout: 1 s"]
            )
            self.proof.failed_add(self.tick(), entry, error, client=name, key=key, attempt=attempt)
            if error.startswith(("closed", "timeout")):
                self.random.choice([self.lose, self.append, self.delay])(key, entry)
            attempt += 1
            yield
        self.append(key, entry)
        self.proof.add(self.tick(), entry, *self.keys[key], client=name, key=key, attempt=attempt)

    def lose(self, key: str, entry: int) -> None:
        """The attempt never reached a server."""

    def append(self, key: str, entry: int) -> None:
        self.keys[key] = (*self.keys.get(key, ()), entry)

    def delay(self, key: str, entry: int) -> None:
        self.late.append((key, entry))

    def tick(self) -> float:
        if self.late and self.random.random() < 0.3:
            self.append(*self.late.pop())
        self.now += 0.01
        return self.now


def made(folder, seed) -> Servers:
    servers = Servers(Proof(folder), Random(seed))
    servers.run()
    return servers


def acknowledged(servers: Servers) -> list[tuple[str, int]]:
    calls = [call for each in servers.proof.calls.values() for call in each]
    return [(call.key, call.entry) for call in calls if call.kind is Kind.ADD and call.is_acknowledged]


@FAST
@given(seed=SEEDS)
def test_what_servers_do_right_is_clean(tmp_path_factory, seed):
    assert made(tmp_path_factory.mktemp("proof"), seed).proof.rules() == []


@FAST
@given(seed=SEEDS, data=st.data())
def test_one_entry_less_is_found(tmp_path_factory, seed, data):
    servers = made(tmp_path_factory.mktemp("proof"), seed)
    key, entry = data.draw(st.sampled_from(acknowledged(servers)))
    left = tuple(each for each in servers.keys[key] if each != entry)
    change(servers, data, key, left)
    assert set(servers.proof.rules()) == {"lost"}


@FAST
@given(seed=SEEDS, data=st.data())
def test_an_entry_of_no_attempt_is_found(tmp_path_factory, seed, data):
    servers = made(tmp_path_factory.mktemp("proof"), seed)
    key, entry = data.draw(st.sampled_from(acknowledged(servers)))
    change(servers, data, key, (*servers.keys[key], *[entry] * 20))
    assert set(servers.proof.rules()) == {"invented"}


@FAST
@given(seed=SEEDS, data=st.data())
def test_two_entries_in_the_wrong_order_are_found(tmp_path_factory, seed, data):
    servers = made(tmp_path_factory.mktemp("proof"), seed)
    keys = sorted(key for key, entries in servers.keys.items() if len(set(entries)) > 1)
    if not keys:
        return
    key = data.draw(st.sampled_from(keys))
    entries = list(servers.keys[key])
    number = data.draw(st.sampled_from([i for i in range(len(entries) - 1) if entries[i] != entries[i + 1]]))
    entries[number], entries[number + 1] = entries[number + 1], entries[number]
    servers.proof.server("r", {**servers.keys, key: tuple(entries)}, master="s")
    assert set(servers.proof.rules()) <= {"invented", "lost"}
    assert servers.proof.rules()


def change(servers: Servers, data: st.DataObject, key: str, entries: tuple[int, ...]) -> None:
    """Give these entries to the replica, or to both copies."""
    changed = {**servers.keys, key: entries}
    servers.proof.server("r", changed, master="s")
    if data.draw(st.booleans()):
        servers.proof.server("s", changed)
