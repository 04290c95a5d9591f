"""What leaves the node of the server's log: telling lines, without clients' data."""

import os

import pytest

from rollout.agent.server.server_log import ServerLog, redacted
from rollout.agent.server.session import Session
from rollout.agent.settings import AgentSettings
from rollout.messages import LONGEST_LOG_LINE

NAMES = {"floor", "base.ask"}
MANGLED = "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE7reserveEm"

KEPT = [
    "# <floor> Floor requires redis-server 7.2.4, this is 7.0.15",
    "# Module /usr/lib/modfleet/n1/floor/10000/floor.so failed to load: It does not have execute permissions.",
    "# Module /m/f/1/f.so failed to load: libfoo.so.1: cannot open shared object file: No such file or directory",
    f"# Module /m/f/1/f.so failed to load: /m/f/1/f.so: undefined symbol: {MANGLED}",
    "# Module /m/f.so failed to load: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /m/f.so)",
    "# Module base unload blocked: An ACL user has reference to rule '+base.ask'",
    "* Module 'floor' loaded from '/usr/lib/modfleet/n1/floor/10000/floor.so'",
    "# Error unloading module types: the module exports one or more data types, can't unload",
    "# Redis 7.0.15 crashed by signal: 11, si_code: 2",
    "# Guru Meditation: No bitmap match in ACLDescribeSelectorCommandRules() #acl.c:770",
    "/usr/lib/modfleet/n1/floor/10000/floor.so(crash+0x1f)[0x7f0b6e45a050]",
    "# BadKey: the index has 12345678 documents and it isn't complete",
]


@pytest.mark.parametrize("line", KEPT)
def test_a_line_about_the_module_stays(line):
    assert redacted(line, NAMES) == line


HIDDEN = [
    ("# <floor> no index for 'customer:4711'", "# <floor> no index for '...'"),
    ('# <floor> cannot parse "Ada Lovelace"', '# <floor> cannot parse "..."'),
    ("# <floor> unclosed 'customer and more", "# <floor> unclosed '...'"),
    ("# <floor> it's 'Ada's secret' here", "# <floor> it's '...' here"),
    (
        "# User bob has no permissions to run the 'get' command",
        "# User ... has no permissions to run the '...' command",
    ),
    ("# <floor> username=bob, password=hunter2, retrying", "# <floor> username=..., password=..., retrying"),
    ("# <floor> DB_PASSWORD=hunter2 API_KEY=abc", "# <floor> DB_PASSWORD=... API_KEY=..."),
    ("# <floor> key customer:4711 is locked", "# <floor> key ... is locked"),
    ("- Accepted 10.0.0.7:51234", "- Accepted <address>"),
    ("* Connecting to MASTER db.example.com:6379", "* Connecting to MASTER <address>"),
    ("* from [2001:db8::1]:6379 and fe80::1", "* from <address> and <address>"),
    ("# <floor> GET https://bob:hunter2@example.com/x failed", "# <floor> GET <address> failed"),
    ("# <floor> mail to ada@example.com failed", "# <floor> mail to ... failed"),
    ("# <floor> hash 5e884898da28047151d0e56f8dc62927 differs", "# <floor> hash ... differs"),
    ("# <floor> jwt eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9 expired", "# <floor> jwt ... expired"),
    ("# <floor> \x1b[31mred\x07 \u202eback", "# <floor> \\x1b[31mred\\x07 \\u202eback"),
]


@pytest.mark.parametrize(("line", "shown"), HIDDEN)
def test_data_of_clients_does_not(line, shown):
    assert redacted(line, NAMES) == shown


def test_a_long_line_is_cut():
    assert redacted("word " * 1000, NAMES) == ("word " * 1000)[:LONGEST_LOG_LINE]


@pytest.mark.parametrize(
    "line", ["'" * 5000, "a:" * 5000, "/a" * 5000, "A1" * 5000, "1." * 5000, "a." * 5000, "key " * 3000, "@" * 5000]
)
def test_no_line_takes_long(line):
    """A log line may have any content, and a pattern must not need quadratic time for it."""
    assert len(redacted(line, NAMES)) <= LONGEST_LOG_LINE


def _to_a_link(log, secret):
    log.unlink(missing_ok=True)
    log.symlink_to(secret)


def _to_a_link_above(log, secret):
    log.unlink(missing_ok=True)
    log.parent.rmdir()
    log.parent.symlink_to(secret.parent)


def _to_a_pipe(log, _):
    log.unlink(missing_ok=True)
    os.mkfifo(log)


def marked(log):
    """The reader of this log. An operation begins now."""
    settings = AgentSettings(
        node="n1",
        broker_url="",
        control_url="",
        server_url="",
        modules_dir=log.parent,
        journal_dir=log.parent,
        server_log=log,
    )
    server_log = ServerLog(settings)
    server_log.mark(Session(None, 1.0))
    return server_log


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("change", [_to_a_link, _to_a_link_above, _to_a_pipe])
def test_a_log_that_becomes_something_else_is_not_read(tmp_path, change, is_there):
    """The server's user could name any file that the agent can read, or stop the agent with a pipe."""
    secret, log = tmp_path / "secret" / "log", tmp_path / "server" / "log"
    for each in (secret, log):
        each.parent.mkdir()
    secret.write_text("a secret\n")
    if is_there:
        log.touch()
    server_log = marked(log)
    change(log, secret)
    assert server_log.lines() == ()
    server_log.close()


def test_a_log_behind_a_link_is_read(tmp_path):
    log, link = tmp_path / "log", tmp_path / "link"
    log.write_text("before\n")
    link.symlink_to(log)
    server_log = marked(link)
    log.write_text("before\nafter\n")
    assert server_log.lines() == ("after",)
    server_log.close()
