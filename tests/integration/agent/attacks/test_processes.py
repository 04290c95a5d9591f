"""A module that attacks other processes, such as the live server, in a scratch server."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from rollout.agent.scratch.confinement import Confinement
from rollout.agent.scratch.server import scratch_server
from rollout.agent.server.session import RefusedError
from rollout.messages import Phase, Reason
from tests.integration.agent.attacks.conftest import (
    OTHER_USER,
    as_other_user,
    said,
    schedule_of,
    succeeded,
)
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_scratch import run_id
from tests.ports import free_port

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])


def test_as_root_it_runs_as_the_user_of_the_server(binary, short_folder, temporary):
    short_folder.chmod(0o755)
    with (
        scratch_server(binary, Confinement(user=OTHER_USER), seconds=30) as server,
        server.started() as session,
    ):
        pid = session.info("server")["process_id"]
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
        assert "Uid:\t{0}\t{0}\t{0}\t{0}".format(OTHER_USER[0]) in Path(f"/proc/{pid}/status").read_text()


def test_an_ordinary_module_works(binary, confinement, ordinary):
    with scratch_server(binary, confinement.showing([ordinary]), seconds=30) as server, server.started() as session:
        with suppress(RefusedError):
            session.load(str(ordinary), [])
        assert [each for each in server.log() if "does not work" in each] == []
        assert "ordinary" in [each.name for each in session.modules()]


@pytest.mark.parametrize("way", ["socket", "port"])
def test_it_cannot_talk_to_the_live_server(site, built, isolation, way):
    """The live server is on a Unix socket and on a port of the host."""
    port = free_port()
    site.server.call("CONFIG", "SET", "port", port)
    site.server.call("SET", "key", "value")
    before = run_id(site)
    report = site.install(
        built("attacks"), command_line_args=f"{way} {site.server.socket if way == 'socket' else port}"
    )
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.LOAD_FAILED)
    assert f"{way}: failed" in report.message
    assert run_id(site) == before
    assert site.server.call("GET", "key") == "value"


def test_it_cannot_reach_another_process_of_its_user(binary, confinement, attacks, other):
    ways = ("kill", "limit", "file", "affinity", "scheduling", "priority")
    before = schedule_of(other.pid)
    assert succeeded(binary, confinement, attacks, [(each, other.pid) for each in ways]) == []
    assert other.poll() is None
    assert "Max open files            0" not in Path(f"/proc/{other.pid}/limits").read_text()
    assert schedule_of(other.pid) == before


def test_it_cannot_use_memory_and_messages_of_its_user(binary, confinement, attacks):
    made = as_other_user("made = libc.shmget(0, 4096, 0o1600), libc.msgget(0, 0o1600)")
    segment, queue = made.split()
    try:
        as_other_user(f"assert libc.msgsnd({queue}, bytes(8 * [1]) + b'x', 1, 0) == 0")
        assert succeeded(binary, confinement, attacks, [("segment", segment), ("message", queue)]) == []
    finally:
        as_other_user(f"made = libc.shmctl({segment}, 0, None), libc.msgctl({queue}, 0, None)")


def test_it_leaves_no_objects_and_keys(binary, confinement, attacks):
    """Where the kernel deletes the objects with the namespace, it may create them."""
    name = f"/{os.getpid()}"
    found = succeeded(binary, confinement, attacks, [("objects", name), ("key", name)])
    assert found == (["objects"] if confinement.is_isolated else [])
    key = int(name[1:])
    made = as_other_user(
        f"made = libc.msgget({key}, 0), libc.semget({key}, 1, 0), libc.shmget({key}, 1, 0), libc.mq_open(b'{name}', 0)"
    )
    assert made == "-1 -1 -1 -1"


def test_it_gets_no_namespace_of_its_own(binary, confinement, attacks):
    """It would have all capabilities in it."""
    assert succeeded(binary, confinement, attacks, [("namespace", "")]) == []


def test_it_cannot_reach_a_socket_that_opens_later(binary, confinement, attacks, folder):
    """Such as that of a live server that starts again meanwhile."""
    path = folder / "socket"
    shown = confinement.showing([attacks])
    with (
        scratch_server(binary, shown, seconds=30) as server,
        server.started() as session,
        socket.socket(socket.AF_UNIX) as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        for each, name in ((stream, path), (datagrams, folder / "datagrams")):
            each.bind(str(name))
            name.chmod(0o777)
            each.setblocking(False)
        stream.listen()
        with pytest.raises(RefusedError):
            session.load(str(attacks), ["socket", str(path), "send", str(folder / "datagrams")])
        for receive in (stream.accept, lambda: datagrams.recv(1)):
            with pytest.raises(BlockingIOError):
                receive()


def test_it_cannot_end_the_keeper(binary, attacks, confinement, temporary):
    """It would outlive the check then."""
    shown = confinement.showing([attacks])
    with scratch_server(binary, shown, seconds=30) as server, server.started() as session:
        keeper = server._keeper
        with pytest.raises(RefusedError):
            session.load(str(attacks), ["kill", str(keeper.pid)])
        assert "kill: failed" in "\n".join(server.log())
        assert keeper.poll() is None


def test_it_has_no_port_of_the_host(binary, confinement, attacks):
    """In namespaces, the same port is another one. Behind the barrier, there is none."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = said(binary, confinement, attacks, "listen", taken.getsockname()[1])
    assert f"listen: {'succeeded' if confinement.is_isolated else 'failed'}" in words
