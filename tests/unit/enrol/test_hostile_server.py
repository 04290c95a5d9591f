"""The installer runs as root, and the server may be hostile: it names files, and it answers."""

import os
import socket
import threading

import pytest

from modfleet.enrol.at_server import AtServer, _has_user_line
from modfleet.enrol.cli import _printable
from modfleet.enrol.host import SystemHost
from modfleet.enrol.rights import LOAD, PERSIST
from modfleet.enrol.server import FoundServer, Login, detect
from modfleet.enrol.steps import Steps
from modfleet.failure import CommandError
from rollout.agent.inspection.configuration import Configuration
from rollout.agent.inspection.process import Process


@pytest.mark.parametrize(
    ("uid", "unit", "is_edited"),
    [(os.getuid(), False, True), (os.getuid() + 1, False, False), (os.getuid() + 1, True, True), (None, False, False)],
)
def test_a_file_that_only_another_user_may_write_is_not_edited(tmp_path, uid, unit, is_edited):
    file = tmp_path / "profile"
    file.write_text("umask 022\n")
    found = FoundServer(
        url="unix:///s",
        login=Login(),
        kind="redis",
        version="7.0.15",
        process=Process(pid=1, uid=uid),
        configuration=Configuration(file=str(file)),
        unit_settings={"ExecStart": f"/usr/bin/redis-server {file}"} if unit else {},
    )
    printed: list[str] = []
    at_server = AtServer(found, SystemHost(), Steps(printed.append), rights=frozenset({LOAD, PERSIST}), yes=True)
    at_server.modules("/usr/lib/modfleet/n1")
    assert (file.read_text() != "umask 022\n") == is_edited
    assert any(line.startswith("to do by you") for line in printed) != is_edited


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_file_of_users_without_end_is_not_read(tmp_path, make):
    make(tmp_path / "users.acl")
    assert not _has_user_line(tmp_path / "users.acl", "+info")


@pytest.mark.parametrize("answer", [b"$x\r\n", b"$99999999999999999999\r\n", b"*-1\r\n"])
def test_an_answer_that_cannot_be_read_is_one_sentence(answer):
    info = b"redis_version:7.0.15\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                while words := connection.recv(4096):
                    is_info = b"INFO" in words and answer.startswith(b"*")
                    connection.sendall(b"$%d\r\n%s\r\n" % (len(info), info) if is_info else answer)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(CommandError, match="does not answer as Redis or Valkey does"):
            detect(f"redis://127.0.0.1:{listening.getsockname()[1]}", [Login()])


def test_text_of_a_server_does_not_control_the_terminal():
    assert _printable("found \x1b[31m Redis\r\nroot# ") == "found \\x1b[31m Redis\\r\\nroot# "
