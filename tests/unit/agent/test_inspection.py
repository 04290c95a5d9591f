"""What the host tells about a server, from a directory that stands for the host's file system."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollout.agent.inspection import access_control, systemd
from rollout.agent.inspection.configuration import (
    MOST_BYTES,
    MOST_FILES,
    MOST_LINES,
    from_arguments,
    read_configuration,
    split_words,
)
from rollout.agent.inspection.mounts import mount_of, sees_same
from rollout.agent.inspection.process import Process, read_process, server_pid, unit_of
from rollout.agent.inspection.rewritable import can_rewrite
from rollout.agent.inspection.systemd import forbids_execution, forbids_writing, unit_settings

UNIT = """[Unit]
Description=ExecPaths=/wrong
[Service]
ExecStart=/usr/bin/redis-server /etc/redis/redis.conf \\
  --supervised systemd
NoExecPaths=/
ExecPaths=/usr/bin/redis-server /usr/lib
# ExecPaths=/comment
ReadWritePaths=-/var/lib/redis
ProtectSystem=true
"""
MOUNTS = """\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
22 21 8:2 / /var/lib rw,noexec - ext4 /dev/sda2 rw
23 21 8:3 /data /mnt/with\\040space rw - ext4 /dev/sda3 rw
"""


@dataclass(frozen=True)
class FakeHost:
    root: Path

    def __call__(self, path: str, text: str) -> Path:
        """Write a file below the root."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        return file


@pytest.fixture
def host(tmp_path):
    return FakeHost(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("loadmodule /a.so b", ("loadmodule", "/a.so", "b")),
        ('loadmodule "/with space.so" "a\\"b\\x41\\n"', ("loadmodule", "/with space.so", 'a"bA\n')),
        ("loadmodule '/it\\'s.so' ''", ("loadmodule", "/it's.so", "")),
        ('  Save ""  ', ("Save", "")),
        ('a "b"c', ("a", "bc")),
        ("a 'b", None),
        ("a 'b\\'", None),
        ("a" * 100 + "'", None),
        ('a "b', None),
    ],
)
def test_words_are_split_as_the_server_does(line, words):
    assert split_words(line) == words


def test_includes_are_read_in_their_place(host):
    host("/etc/redis/redis.conf", "port 0\ninclude /etc/redis/a.conf\n# x\ninclude /etc/redis/d/*.conf\nPORT 1\n")
    host("/etc/redis/a.conf", "port 2\nloadmodule /m.so x\n")
    host("/etc/redis/d/2.conf", "port 4\n")
    host("/etc/redis/d/1.conf", "port 3\n")
    found = read_configuration("/etc/redis/redis.conf", host.root)
    assert [each.words[1] for each in found.all("port")] == ["0", "2", "3", "4", "1"]
    assert found.last("port") == "1"
    assert [each.place for each in found.all("loadmodule")] == ["/etc/redis/a.conf:2"]
    assert found.files == ("/etc/redis/redis.conf", "/etc/redis/a.conf", "/etc/redis/d/1.conf", "/etc/redis/d/2.conf")
    assert found.unread == {}


def test_what_cannot_be_read_is_named(host):
    host("/r.conf", "include /missing.conf\ninclude relative.conf\nport 'x\ninclude /none/*.conf\n")
    assert read_configuration("/r.conf", host.root).unread == {
        "/missing.conf": "No such file or directory",
        "relative.conf": "a relative path",
        "/r.conf:3": "unbalanced quotes",
    }
    assert read_configuration("/no.conf", host.root).unread == {"/no.conf": "No such file or directory"}


def test_a_relative_include_follows_dir(host):
    host("/r.conf", "dir /var/lib/redis\ninclude more.conf\n")
    host("/var/lib/redis/more.conf", "port 7\n")
    assert read_configuration("/r.conf", host.root).last("port") == "7"


def test_a_file_that_includes_itself_ends(host):
    host("/r.conf", "include /r.conf\n")
    assert read_configuration("/r.conf", host.root).unread == {"/r.conf": "too many levels of includes"}


def test_options_of_the_command_line():
    found = from_arguments(("/etc/r.conf", "--LoadModule", "/a.so", "x", "--port", "0"))
    assert [(each.words, each.place) for each in found] == [
        (("loadmodule", "/a.so", "x"), "the command line"),
        (("port", "0"), "the command line"),
    ]


def test_a_process(host):
    host("/proc/7/status", "Name:\tredis-server\nUid:\t0\t104\t0\t0\nGid:\t1\t105\t1\t1\nGroups:\t105 106 \n")
    host("/proc/7/cgroup", "0::/system.slice/redis-server.service\n")
    host("/proc/7/cmdline", "/usr/bin/redis-server 127.0.0.1:6379\0\0\0\0")
    host("/usr/lib/systemd/system/redis-server.service", UNIT)
    (host.root / "proc/7/exe").symlink_to("/usr/bin/redis-check-rdb")
    found = read_process(7, host.root)
    assert (found.uid, found.gid, found.groups) == (104, 105, (105, 106))
    assert (found.executable, found.unit) == ("/usr/bin/redis-check-rdb", "redis-server.service")
    assert found.arguments == ("/etc/redis/redis.conf", "--supervised", "systemd")


def test_arguments_that_the_server_has_not_replaced(host):
    host("/proc/7/cmdline", "redis-server\0--port\x000\0")
    assert read_process(7, host.root).arguments == ("--port", "0")


def test_an_unknown_process(host):
    assert read_process(7, host.root) == Process(pid=7)


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/user.slice/user-0.slice/session-1.scope\n", None),
        ("0::/system.slice/system-redis\\x2dserver.slice/redis-server@a.service\n", "redis-server@a.service"),
        ("4:memory:/system.slice/x.service\n1:name=systemd:/system.slice/y.service\n", "y.service"),
        ("", None),
    ],
)
def test_the_unit_of_a_process(host, cgroup, unit):
    host("/proc/7/cgroup", cgroup)
    assert unit_of(7, host.root) == unit


def test_a_listening_tcp_socket(host):
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    row = "   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000   0        0 4711 1 0\n"
    host("/proc/net/tcp", header + row)
    (host("/proc/9/comm", "x").parent / "fd").mkdir()
    (host.root / "proc/9/fd/6").symlink_to("socket:[4711]")
    assert server_pid("redis://127.0.0.1:6379", {}, host.root) == 9
    assert server_pid("redis://127.0.0.1:6380", {}, host.root) is None
    assert server_pid("redis://192.0.2.1:6379", {"process_id": "9"}, host.root) is None


def test_a_listening_unix_socket(host):
    header = "Num       RefCount Protocol Flags    Type St Inode Path\n"
    host("/proc/net/unix", header + "0000: 00000002 00000000 00010000 0001 01 42 /run/none/redis.sock\n")
    (host("/proc/9/comm", "x").parent / "fd").mkdir()
    (host.root / "proc/9/fd/6").symlink_to("socket:[42]")
    assert server_pid("unix:///run/none/redis.sock", {}, host.root) == 9


@pytest.mark.parametrize(("started", "pid"), [(9_000, 9), (1_000, None)])
def test_the_pid_that_the_server_names_counts_only_for_the_same_process(host, started, pid):
    ticks = os.sysconf("SC_CLK_TCK")
    info = {"process_id": "9", "uptime_in_seconds": "1000", "executable": "/usr/bin/redis-server"}
    host("/proc/uptime", "10000.5 1.0\n")
    host("/proc/9/stat", f"9 (redis-server) S {' '.join(['0'] * 18)} {started * ticks} 0\n")
    assert server_pid("redis://localhost:1", info, host.root) == pid


def test_unit_files_and_drop_ins(host):
    host("/usr/lib/systemd/system/redis-server.service", UNIT)
    host("/etc/systemd/system/redis-server.service.d/m.conf", "[Service]\nExecPaths=/var/lib/modfleet\n")
    host("/usr/lib/systemd/system/redis-server.service.d/m.conf", "[Service]\nExecPaths=/hidden\n")
    host("/run/systemd/system/redis-server.service.d/a.conf", "[Service]\nReadWritePaths=\n")
    found = unit_settings("redis-server.service", host.root)
    assert found == {
        "ExecStart": "/usr/bin/redis-server /etc/redis/redis.conf  --supervised systemd",
        "NoExecPaths": "/",
        "ExecPaths": "/usr/bin/redis-server /usr/lib /var/lib/modfleet",
        "ProtectSystem": "true",
    }
    assert unit_settings("other.service", host.root) is None


def test_a_template(host):
    host("/etc/systemd/system/redis@.service", "[Service]\nExecPaths=/srv/%i\n")
    assert unit_settings("redis@a.service", host.root) == {"ExecPaths": "/srv/a"}


def test_the_longest_path_decides():
    settings = {"NoExecPaths": "/ /usr/lib/not", "ExecPaths": "/usr/lib -/opt"}
    assert [forbids_execution(settings, each) for each in ("/var/x", "/usr/lib/x", "/usr/lib/not/x", "/opt")] == [
        True,
        False,
        True,
        False,
    ]
    assert not forbids_execution({}, "/var/x")
    assert not forbids_execution({"ExecPaths": "/usr"}, "/var/x")


@pytest.mark.parametrize(
    ("settings", "path", "forbidden"),
    [
        ({}, "/usr/lib/m", False),
        ({"ProtectSystem": "full"}, "/usr/lib/m", True),
        ({"ProtectSystem": "full"}, "/var/lib/m", False),
        ({"ProtectSystem": "strict"}, "/var/lib/m", True),
        ({"ProtectSystem": "strict", "ReadWritePaths": "-/var/lib/m"}, "/var/lib/m", False),
        ({"ProtectSystem": "no", "ReadOnlyPaths": "/"}, "/var", True),
        ({"ReadOnlyPaths": "/var/lib/m", "ReadWritePaths": "/var"}, "/var/lib/m", True),
    ],
)
def test_what_a_unit_may_write(settings, path, forbidden):
    assert forbids_writing(settings, path) is forbidden


def test_mounts(host):
    host("/proc/self/mountinfo", MOUNTS)
    found = mount_of("/var/lib/modfleet", root=host.root)
    assert found
    assert (found.point, found.device, found.inner) == ("/var/lib", "8:2", "/modfleet")
    assert "noexec" in found.options
    spaced = mount_of("/mnt/with space/x", root=host.root)
    assert spaced
    assert spaced.inner == "/data/x"
    assert mount_of("/x", 7, host.root) is None


def test_two_processes_see_the_same_directory(host):
    host("/proc/self/mountinfo", MOUNTS)
    host("/proc/7/mountinfo", "1 1 9:9 / / rw - overlay o rw\n2 1 8:2 /modfleet /modules rw - ext4 x rw\n")
    assert sees_same("/var/lib/modfleet/x", "/modules/x", 7, host.root) is True
    assert sees_same("/var/lib/modfleet", "/var/lib/modfleet", 7, host.root) is False
    assert sees_same("/var/lib/modfleet", "/modules", 8, host.root) is None


def test_mandatory_access_control(host):
    assert access_control.selinux_enforces(host.root) is None
    assert access_control.apparmor_is_active(host.root) is False
    assert access_control.security_context(7, host.root) is None
    host("/sys/fs/selinux/enforce", "1")
    host("/sys/module/apparmor/parameters/enabled", "Y\n")
    host("/proc/7/attr/current", "/usr/bin/redis-server (enforce)\n")
    assert access_control.selinux_enforces(host.root) is True
    assert access_control.apparmor_is_active(host.root) is True
    assert access_control.security_context(7, host.root) == "/usr/bin/redis-server (enforce)"


def test_systemd_itself_is_asked(tmp_path, monkeypatch):
    shown = "ExecPaths=/usr/lib /lib\nNoExecPaths=/\nUser=redis\nRestart=\nLoadState={state}\n"
    shim = tmp_path / "systemctl"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    shim.write_text(f"#!/bin/sh\nprintf '{shown.format(state='loaded')}'\n")
    shim.chmod(0o755)
    assert systemd._shown("redis-server.service") == {
        "ExecPaths": "/usr/lib /lib",
        "NoExecPaths": "/",
        "User": "redis",
    }
    shim.write_text(f"#!/bin/sh\nprintf '{shown.format(state='not-found')}'\n")
    assert systemd._shown("redis-server.service") is None
    shim.write_text("#!/bin/sh\nexit 1\n")
    assert systemd._shown("redis-server.service") is None


# --- A hostile server names the configuration file --------------------------------------------------------------------


def _pipe(path):
    os.mkfifo(path)


def _endless(path):
    path.symlink_to("/dev/zero")


def _huge(path):
    path.touch()
    os.truncate(path, MOST_BYTES + 1)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_pipe, "it is not a regular file"),
        (_endless, "it is not a regular file"),
        (Path.mkdir, "it is not a regular file"),
        (_huge, f"more than {MOST_BYTES} bytes"),
    ],
)
def test_a_file_without_end_is_not_read(tmp_path, make, reason):
    make(tmp_path / "redis.conf")
    assert read_configuration("/redis.conf", tmp_path).unread == {"/redis.conf": reason}


def test_a_path_with_a_nul_is_not_read(tmp_path):
    assert read_configuration("/a\0b", tmp_path).unread == {"/a\0b": "embedded null byte"}


def test_a_file_that_includes_itself_many_times_is_read_to_a_limit(tmp_path):
    (tmp_path / "redis.conf").write_text("include /redis.conf\n" * 3)
    found = read_configuration("/redis.conf", tmp_path)
    assert len(found.files) == MOST_FILES
    assert found.unread["/redis.conf"] in {f"more than {MOST_FILES} files", "too many levels of includes"}


def test_more_lines_than_the_limit_are_not_read(tmp_path):
    (tmp_path / "redis.conf").write_text("a\n" * (MOST_LINES + 1))
    found = read_configuration("/redis.conf", tmp_path)
    assert (len(found.directives), found.unread) == (MOST_LINES, {"/redis.conf": f"more than {MOST_LINES} lines"})


@pytest.mark.parametrize(
    ("main", "mounted", "can"),
    [
        ("", "", False),
        (None, "", True),
        ("/etc/s/s.conf", "", True),
        ("/etc/s/s.conf", "2 1 8:1 /s /etc/s ro - ext4 x rw\n", False),
        ("/etc/s/s.conf", "2 1 8:1 /s /etc/s rw - ext4 x rw\n", True),
        ("/etc/s/s.conf", "2 1 8:1 /s /etc/s/s.conf rw - ext4 x rw\n", False),
    ],
)
def test_a_server_that_surely_cannot_write_its_configuration(host, main, mounted, can):
    host("/proc/7/mountinfo", f"1 0 8:1 / / rw - ext4 x rw\n{mounted}")
    assert can_rewrite(main, 7, host.root) is can
    assert can_rewrite(main, None, host.root) is (main != "")
