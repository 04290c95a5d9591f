"""Where the agent finds what the server logged, and what it takes from there."""

import os
import sys

import pytest

from rollout.agent.operations import activate
from rollout.agent.server import swap
from rollout.agent.server.server_log import LINES_BEFORE_CRASH
from rollout.messages import LONGEST_LOG_LINE, MOST_LOG_LINES, Phase, Reason
from tests.integration.agent.conftest import SERVERS, VALKEY

pytestmark = pytest.mark.slow

BOTH = pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)
WORDS = "# <floor> Floor requires redis-server 99.0"
UNREAD = "The agent cannot read the server's log"


@pytest.fixture
def scratch():
    """The live server refuses or crashes here, and not a scratch server."""
    return "off"


def restarted(site, *options):
    site.server.kill()
    site.server.options = options
    site.server.start()


def settings(site, **changes):
    site.environ |= {f"MODFLEET_{name}": str(value) for name, value in changes.items()}
    site.restart_agent()


@pytest.fixture
def log(site):
    """The file that the server names itself."""
    restarted(site, "--logfile", site.root / "server.log")
    return site.root / "server.log"


@BOTH
def test_the_server_names_its_log(site, built, log):
    report = site.install(built("floor", 1))
    assert report.server_log[-2:] == (WORDS, report.server_log[-1])
    assert "initialization failed" in report.server_log[-1]
    assert not any(line[:1].isdigit() for line in report.server_log)


def test_a_path_that_the_server_resolves(site, built):
    restarted(site, "--logfile", "server.log")
    assert WORDS in site.install(built("floor", 1)).server_log


def test_a_log_in_another_format(site, built):
    restarted(site, "--logfile", site.root / "server.log", "--log-format", "logfmt")
    assert WORDS in site.install(built("floor", 1)).server_log


def test_a_configured_path(site, built):
    """The server writes to its standard output, which is a file here."""
    settings(site, SERVER_LOG=site.server.folder / "log")
    report = site.install(built("floor", 1))
    assert WORDS in report.server_log
    assert UNREAD not in report.message


def test_data_of_clients_stays_on_the_node(site, built, log):
    report = site.install(built("floor", 1))
    assert "* <floor> starting up for user '...' at <address>" in report.server_log
    assert "alice" not in repr((report.message, report.server_log))


def test_only_what_was_logged_since(site, built, log):
    site.install(built("floor", 1))
    report = site.install(built("refuses"))
    assert WORDS not in report.server_log
    assert any("refuses.so initialization failed" in line for line in report.server_log)


def test_a_success_has_no_lines(site, built, log):
    assert site.install(built("greet")).server_log == ()


def test_no_log_at_all(site, built):
    report = site.install(built("floor", 1))
    assert (report.reason, report.server_log) == (Reason.LOAD_FAILED, ())
    assert f"{UNREAD} (the server has no log file). Set MODFLEET_SERVER_LOG or MODFLEET_SERVER_UNIT" in report.message


def test_a_log_that_is_not_there(site, built):
    settings(site, SERVER_LOG=site.root / "nothing.log")
    assert f"{UNREAD} ({site.root}/nothing.log: No such file or directory)" in site.install(built("floor", 1)).message


def test_a_pipe_is_not_waited_for(site, built):
    os.mkfifo(site.root / "pipe")
    settings(site, SERVER_LOG=site.root / "pipe")
    assert "is not a regular file" in site.install(built("floor", 1)).message


def test_no_right_to_ask_for_the_log(site, built, log):
    site.server.call("ACL", "SETUSER", "agent", "on", ">secret", "+@all", "-config")
    (site.root / "password").write_text("secret")
    settings(site, SERVER_USER="agent", SERVER_PASSWORD_FILE=site.root / "password")
    report = site.install(built("floor", 1))
    assert (report.reason, report.server_log) == (Reason.LOAD_FAILED, ())
    assert f"{UNREAD} (the agent's user may not call CONFIG GET)" in report.message


# --- Rotation ---------------------------------------------------------------------------------------------------------


def test_a_rotation_before_the_command(site, built, log):
    site.install(built("refuses"))
    log.rename(f"{log}.1")
    assert WORDS in site.install(built("floor", 1)).server_log


def rotated(log, monkeypatch, how):
    """Rotate the log after the agent has marked its end, before the server loads the module."""

    def rotate_and_load(session, module):
        how()
        swap.load(session, module)

    monkeypatch.setattr(activate, "load", rotate_and_load)


def test_a_rotation_during_the_command(site, built, log, monkeypatch):
    rotated(log, monkeypatch, lambda: log.rename(f"{log}.1"))
    assert WORDS in site.install(built("floor", 1)).server_log


def test_a_log_that_is_deleted_during_the_command(site, built, log, monkeypatch):
    rotated(log, monkeypatch, log.unlink)
    assert WORDS in site.install(built("floor", 1)).server_log


def test_a_log_that_is_truncated_during_the_command(site, built, log, monkeypatch):
    rotated(log, monkeypatch, lambda: os.truncate(log, 0))
    assert WORDS in site.install(built("floor", 1)).server_log


# --- The journal ------------------------------------------------------------------------------------------------------

#: Stands in for systemd's program: there is no journal without systemd. It notes its arguments, and prints what the server
#: has logged since the time that they name.
JOURNALCTL = """#!{python}
import os, sys
from datetime import datetime
from pathlib import Path
folder = Path({folder!r})
(folder / "arguments").write_text(" ".join(sys.argv[1:]))
since = float(sys.argv[sys.argv.index("--since") + 1].removeprefix("@"))
if (folder / "denied").exists():
    sys.exit("No journal files were opened due to insufficient permissions.")
for line in (folder / "s" / "log").read_text().splitlines():
    words = line.split()
    try:
        at = datetime.strptime(" ".join(words[1:5]), "%d %b %Y %H:%M:%S.%f").timestamp()
    except ValueError:
        continue
    if at >= since - 0.001:
        print(line)
"""


@pytest.fixture
def journal(site, monkeypatch):
    programs = site.root / "bin"
    programs.mkdir()
    (programs / "journalctl").write_text(JOURNALCTL.format(python=sys.executable, folder=str(site.root)))
    (programs / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    settings(site, SERVER_UNIT="redis-server@a.service")
    return site.root


def test_the_journal_of_the_unit(site, built, journal):
    report = site.install(built("floor", 1))
    assert WORDS in report.server_log
    assert "--output cat --unit redis-server@a.service --since @" in (journal / "arguments").read_text()


def test_a_journal_that_the_agent_may_not_read(site, built, journal):
    (journal / "denied").touch()
    assert f"{UNREAD} (No journal files were opened due to insufficient" in site.install(built("floor", 1)).message


# --- Crashes ----------------------------------------------------------------------------------------------------------


@BOTH
def test_a_crash_report(site, built, log):
    report = site.install(built("segfaults", 1))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_CRASHED)
    text = "\n".join(report.server_log)
    assert "# <segfaults> about to crash" in text
    assert "crashed by signal: 11" in text
    assert "segfaults.so(RedisModule_OnLoad" in text
    assert "redis_version" not in text
    assert len(report.server_log) <= MOST_LOG_LINES
    assert max(map(len, report.server_log)) <= LONGEST_LOG_LINE


def test_a_crash_after_many_lines(site, built, log, monkeypatch):
    def chat():
        with log.open("a") as file:
            file.write("".join(f"1:M 26 Nov 2026 13:58:20.571 * line {number}\n" for number in range(100)))

    rotated(log, monkeypatch, chat)
    report = site.install(built("segfaults", 1))
    assert report.server_log[LINES_BEFORE_CRASH - 1] == "# <segfaults> about to crash"
    assert "* line 99" in report.server_log
    assert any("crashed by signal" in line for line in report.server_log)


def test_a_crash_without_a_report(site, built, log):
    """SIGKILL leaves no word: the lines before it are all there is."""
    report = site.install(built("crashes"))
    assert report.reason is Reason.SERVER_CRASHED
    assert report.server_log == ()
    assert site.server.binary == VALKEY
