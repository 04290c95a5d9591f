"""Upgrades while clients call the module: no call is refused."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from rollout.agent.server.causes import LoadRefusedError
from rollout.agent.server.session import LoadedModule
from rollout.agent.server.swap import swap
from rollout.messages import Activation, Phase
from tests.integration.agent.conftest import SERVERS

#: A client in a closed loop until its standard input ends; it prints how many calls it made, and the refused ones.
CLIENT = """
import select, socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
replies, calls, refused = client.makefile("rb"), 0, {}
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    client.sendall(b"PADDED.ASK\\r\\n")
    reply = replies.readline()
    calls += 1
    if reply[:1] == b"-":
        refused[reply] = refused.get(reply, 0) + 1
print(calls, sum(refused.values()), refused)
"""


@contextmanager
def two_clients(site, counts):
    words = [sys.executable, "-c", CLIENT, str(site.server.socket)]
    clients = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        assert [each.stdout.readline() for each in clients if each.stdout] == ["ready\n"] * 2
        yield
    finally:
        for each in clients:
            calls, refused, *_ = each.communicate()[0].split()
            counts.append((int(calls), int(refused)))


def refused_while(site, built, versions):
    """Refused calls of each client while `padded` is upgraded to each of the versions."""
    site.install(built("padded", versions[0]))
    counts: list[tuple[int, int]] = []
    with two_clients(site, counts):
        reports = [site.install(built("padded", version)) for version in versions[1:]]
    assert [each.phase for each in reports] == [Phase.SUCCEEDED] * len(reports)
    assert all(each.swap_seconds > 0 for each in reports)
    assert site.server.loaded() == {("padded", versions[-1])}
    assert all(calls > 100 for calls, _ in counts)
    return [refused for _, refused in counts]


BOTH = pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)
#: Versions of 15 KB and of 30 MB.
SMALL, LARGE = (1, 2), (1001, 1002)


@BOTH
@pytest.mark.parametrize("versions", [SMALL * 3, LARGE], ids=["small", "large"])
def test_no_call_is_refused(site, built, versions):
    assert refused_while(site, built, versions) == [0, 0]


@pytest.mark.full
@BOTH
@pytest.mark.parametrize("versions", [SMALL * 10 + SMALL[:1], LARGE * 10 + LARGE[:1]], ids=["small", "large"])
def test_no_call_is_refused_in_twenty_upgrades(site, built, versions):
    assert refused_while(site, built, versions) == [0, 0]


@BOTH
def test_a_refused_version_is_replaced_by_the_former_one_at_once(site, built):
    """In the swap itself: the undo of the operation comes later."""
    site.install(built("greet"))
    site.install(built("refuses"), activation=Activation.FILES)
    path = str(site.folder(built("refuses")) / "refuses.so")
    with site.runner.node.server.session() as session:
        (greet,) = [each for each in session.modules() if each.name == "greet"]
        with pytest.raises(LoadRefusedError):
            swap(session, greet, LoadedModule(name="greet", version=10001, path=path, args=()), back=greet)
    assert site.server.call("GREET.HELLO") == "Hello, world, from greet 1.0.0"
