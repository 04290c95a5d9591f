"""What this host tells about a real server that runs on it."""

import os
import socket
import subprocess
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rollout.agent.inspection.configuration import read_configuration, split_words
from rollout.agent.inspection.mounts import mount_of, sees_same
from rollout.agent.inspection.process import Process, read_process, server_pid
from rollout.agent.inspection.sockets import host_addresses, is_local
from tests.integration.agent.conftest import SERVERS, VALKEY
from tests.ports import free_port
from tests.waiting import wait_for


@pytest.fixture(params=SERVERS, ids=lambda binary: Path(binary).name)
def server(request, short_folder):
    """A server with a configuration file, an include, a Unix socket and a port."""
    (short_folder / "conf.d").mkdir()
    (short_folder / "conf.d/1.conf").write_text("maxclients 50\n")
    port = free_port()
    lines = [
        f"unixsocket {short_folder}/s",
        f"port {port}",
        'save ""',
        f"dir {short_folder}",
        f"include {short_folder}/conf.d/*.conf",
    ]
    (short_folder / "r.conf").write_text("\n".join(lines) + "\n")
    with subprocess.Popen([request.param, short_folder / "r.conf"], stdout=subprocess.DEVNULL) as running:
        client = redis.Redis(port=port)
        wait_for(lambda: answers(client))
        yield running, client, short_folder, port
        client.close()
        running.kill()


def answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


def test_the_addresses_of_this_host():
    found = host_addresses()
    assert [each for each in found if not is_local(each) or ip_address(each).is_loopback] == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with suppress(OSError):  # a host without a network
            probe.connect(("192.0.2.1", 9))  # sends nothing
        name, _ = probe.getsockname()
    assert name in {*found, "0.0.0.0"}


def test_the_process_is_found_by_each_of_its_sockets(server):
    running, _, folder, port = server
    assert server_pid(f"unix://{folder}/s", {}) == running.pid
    assert server_pid(f"unix://{folder}/%73", {}) == running.pid
    assert server_pid(f"redis://localhost:{port}", {}) == running.pid


def test_the_process_that_the_server_names_is_confirmed(server, tmp_path):
    running, client, _, _ = server
    info = {key: str(value) for key, value in client.info("server").items()}
    (tmp_path / "proc").mkdir()
    (tmp_path / f"proc/{running.pid}").symlink_to(f"/proc/{running.pid}")
    (tmp_path / "proc/uptime").symlink_to("/proc/uptime")
    url = f"redis://localhost:{free_port()}"  # no socket tells
    assert server_pid(url, info, tmp_path) == running.pid
    assert server_pid(url, {**info, "executable": "/usr/bin/other"}, tmp_path) is None
    assert server_pid(url, {**info, "uptime_in_seconds": "99999"}, tmp_path) is None


def test_its_title_is_not_taken_for_arguments(server):
    running, client, _, _ = server
    assert b"*:" in Path(f"/proc/{running.pid}/cmdline").read_bytes()
    found = read_process(running.pid)
    assert found == Process(
        pid=running.pid,
        executable=os.path.realpath(client.info("server")["executable"]),
        arguments=None,
        uid=os.geteuid(),
        gid=os.getegid(),
        groups=found.groups,
        unit=found.unit,
    )
    assert found.groups is not None


def test_its_configuration_is_read_from_the_file_that_it_names(server):
    _, client, _, port = server
    found = read_configuration(client.info("server")["config_file"])
    assert found.last("maxclients") == "50"
    assert found.last("port") == str(port)
    assert found.unread == {}


def test_it_sees_the_same_directories(server):
    running, _, folder, _ = server
    assert mount_of(str(folder)) == mount_of(str(folder), running.pid)
    assert sees_same(str(folder), str(folder), running.pid) is True
    assert sees_same(str(folder), "/usr", running.pid) is False


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
@pytest.mark.parametrize(
    "word",
    ["plain", '"b\\x41\\n\\"c"', "'d\\'e'", "'b\\n'", '"\\q"', 'a"b c"', "a'b c'", "a 'b", '"b"c', 'a"b', "it's"],
)
def test_words_are_split_as_the_server_does(short_folder, binary, word):
    (short_folder / "r.conf").write_text(f"masterauth {word}\n")
    words = [binary, short_folder / "r.conf", "--port", "0", "--unixsocket", short_folder / "s", "--save", ""]
    with subprocess.Popen(
        [*words, "--dir", short_folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        client = redis.Redis(
            unix_socket_path=str(short_folder / "s"), decode_responses=True, retry=Retry(NoBackoff(), 0)
        )
        wait_for(lambda: running.poll() is not None or answers(client))
        given = None if running.returncode else client.config_get("masterauth")["masterauth"]
        running.kill()
    expected = split_words(f"masterauth {word}")
    strict = binary != VALKEY and word == '"b"c'
    assert given == (expected and expected[1] if not strict else None)
