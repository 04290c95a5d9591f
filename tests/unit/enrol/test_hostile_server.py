"""The installer runs as root, and the server may be hostile: it names files, and it answers."""

import os
import socket
import threading
from pathlib import Path

import pytest

from modfleet.enrol.at_server import AtServer, _has_user_line
from modfleet.enrol.cli import _printable
from modfleet.enrol.host import Host, SystemHost
from modfleet.enrol.rights import LOAD
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
    at_server = AtServer(
        found, SystemHost(), Steps(printed.append), rights=frozenset({LOAD}), owner="include", yes=True
    )
    at_server.modules("/usr/lib/modfleet/n1")
    assert (file.read_text() != "umask 022\n") == is_edited
    assert any(line.startswith("to do by you") for line in printed) != is_edited


@pytest.fixture
def its(tmp_path):
    """Returns what edits the configuration file of a server whose user owns its directory, and what that prints."""
    file = tmp_path / "redis" / "redis.conf"
    file.parent.mkdir()
    file.write_text("port 6379\n")
    found = FoundServer(
        url="unix:///s",
        login=Login(),
        kind="redis",
        version="7.0.15",
        process=Process(pid=1, uid=os.getuid()),
        configuration=Configuration(file=str(file)),
        unit_settings={"ExecStart": f"/usr/bin/redis-server {file}"},
        enable_module_command="local",
    )
    printed: list[str] = []
    return (
        AtServer(found, SystemHost(), Steps(printed.append), rights=frozenset({LOAD}), owner="include", yes=True),
        file,
        printed,
    )


@pytest.mark.parametrize("name", ["host/../redis/redis.conf", "host/etc/redis.conf"])
def test_a_file_outside_the_root_is_not_edited(its, tmp_path, name):
    _, file, _ = its
    (tmp_path / "host").mkdir()
    (tmp_path / "host/etc").symlink_to(file.parent)
    assert Host(tmp_path / "host").editable(str(tmp_path / name)) is None
    assert Host(tmp_path).editable(str(file)) == file


def test_a_link_in_place_of_the_file_is_not_followed(its, tmp_path):
    at_server, file, printed = its
    (tmp_path / "shadow").write_text("root\n")
    file.unlink()
    file.symlink_to(tmp_path / "shadow")
    at_server.modules("/usr/lib/modfleet/n1")
    assert (tmp_path / "shadow").read_text() == "root\n"
    assert [each.name for each in file.parent.iterdir()] == ["redis.conf"]
    assert any(line.startswith("to do by you") for line in printed)


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_a_link_in_place_of_the_copy_is_not_followed(its, tmp_path, name):
    at_server, file, _ = its
    (tmp_path / "file").write_text("root\n")
    file.chmod(0o640)
    file.with_name("redis.conf.before-modfleet-1").symlink_to(tmp_path / name)
    at_server.modules("/usr/lib/modfleet/n1")
    assert not (tmp_path / "nothing").exists()
    assert (tmp_path / "file").read_text() == "root\n"
    copy = file.with_name("redis.conf.before-modfleet-2")
    assert (copy.read_text(), copy.stat().st_mode & 0o777) == ("port 6379\n", 0o640)
    assert "include " in file.read_text()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_a_file_that_is_replaced_after_the_check_is_not_changed(its, monkeypatch, make):
    at_server, file, _ = its
    may_edit = at_server._may_edit

    def race(path, found):
        monkeypatch.setattr(at_server, "_may_edit", may_edit)
        file.unlink()
        make(file)
        return may_edit(path, found)

    monkeypatch.setattr(at_server, "_may_edit", race)
    with pytest.raises(CommandError, match="cannot be changed"):
        at_server.modules("/usr/lib/modfleet/n1")
    assert [each.name for each in file.parent.iterdir()] == ["redis.conf"]


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
