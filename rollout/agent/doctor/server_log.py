"""Check that the agent can read what its server logs, so that a failed load is reported with the server's words."""

import grp
import os
import pwd
import shutil
import stat
from pathlib import Path

from rollout.agent.doctor.host import Host, words_of
from rollout.agent.doctor.outcome import Outcome, UnknownError, passed, unit_word, unknown, warned, word

#: Directories of journald's files.
JOURNALS = ("var/log/journal", "run/log/journal")


def server_log(host: Host) -> Outcome:
    """Look at the settings only: a server counts each refused CONFIG GET."""
    settings = host.settings
    if settings.server_log:
        return _file(host, settings.server_log)
    if settings.server_unit:
        return _journal(host, settings.server_unit)
    return passed("MODFLEET_SERVER_LOG is not set: the agent asks the server for the path of its log, if its user may.")


def _file(host: Host, path: Path) -> Outcome:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return warned(f"The server's log {path} is not a regular file.", "Correct MODFLEET_SERVER_LOG.")
        path.open("rb").close()
    except PermissionError:
        return warned(f"The agent cannot read the server's log {path}: Permission denied.", missing_right(path))
    except OSError as error:
        return warned(f"The server's log {path} cannot be read: {words_of(error)}.", "Correct MODFLEET_SERVER_LOG.")
    require_the_agents_user(host)
    return passed(f"The agent can read the server's log {path}.")


def _journal(host: Host, unit: str) -> Outcome:
    if shutil.which("journalctl") is None:
        return warned(
            f"The agent cannot read the journal of {unit}: there is no journalctl.",
            "Let the server log to a file, and set MODFLEET_SERVER_LOG to its path.",
        )
    files = [file for each in JOURNALS for file in (host.root / each).glob("*/system.journal")]
    if not files:
        return unknown("No journal is visible in /var/log/journal and /run/log/journal.")
    if not any(os.access(each, os.R_OK) for each in files):
        return warned(
            f"The agent cannot read the journal of {unit}: Permission denied.", _membership("systemd-journal")
        )
    require_the_agents_user(host)
    return passed(f"The agent can read the journal of {unit}.")


def require_the_agents_user(host: Host) -> None:
    """Raises: `UnknownError` if root runs the doctor of an agent that runs as another user."""
    journal_dir = host.settings.journal_dir
    if os.geteuid() == 0 and journal_dir.exists() and journal_dir.stat().st_uid != 0:
        raise UnknownError(
            "The doctor runs as root, which can read every log.",
            f"`modfleet nodes show {host.settings.node}` shows what the agent itself finds.",
        )


def missing_right(path: Path) -> str:
    """Return how the agent's user can read the file: the first path that is closed to it decides."""
    for each in (*reversed(path.parents), path):
        mode, bit, letter = (os.R_OK, stat.S_IRGRP, "r") if each == path else (os.X_OK, stat.S_IXGRP, "x")
        if os.access(each, mode):
            continue
        found = each.stat()
        if found.st_mode & bit and found.st_gid:
            return _membership(_group(found.st_gid))
        return f"setfacl --modify {word(f'u:{_user()}:{letter}')} {word(each)}"
    return "Let the agent's user read the file."


def _membership(group: str) -> str:
    return (
        f"Add the agent's user to the group {group}, with `SupplementaryGroups={unit_word(group)}` in the agent's unit."
    )


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
