"""Checks of the agent's directories and files: writable, visible to the server, enough space."""

import os
import shutil
import stat
import uuid
from pathlib import Path, PurePosixPath

from rollout.agent.control_plane.identity import IdentityError, read_identity
from rollout.agent.doctor.certificates import DAY, in_days, seconds_left
from rollout.agent.doctor.host import Host, words_of
from rollout.agent.doctor.outcome import Outcome, UnknownError, failed, passed, unit_word, warned, word
from rollout.agent.inspection.host_files import on_host
from rollout.agent.inspection.mounts import sees_same
from rollout.agent.inspection.process import Process

GIGABYTE = 1_000_000_000
SPACE_WARN, SPACE_FAIL = GIGABYTE, GIGABYTE // 10


def identity(host: Host) -> Outcome:
    """The node proves with this file who it is. The agent replaces it when it changes its key."""
    file = host.settings.identity_file
    if file is None:
        return warned(
            "MODFLEET_IDENTITY_FILE is not set: the node's messages are not signed.",
            "Join with a token: `modfleet nodes add` prints the command.",
        )
    try:
        node = read_identity(file).node
    except IdentityError as error:
        return failed(
            str(error), "Run `modfleet agent install` with a new token, or let the agent's user read the file."
        )
    if node != host.settings.node:
        return failed(f"The identity {file} is of the node {node}.", "Correct MODFLEET_NODE or MODFLEET_IDENTITY_FILE.")
    if file.stat().st_mode & 0o077:
        return warned(f"Other users may read the private key in {file}.", f"chmod 600 {word(file)}")
    if problem := _unwritable(file.parent):
        return failed(
            f"The agent cannot replace {file}: {problem}.", f"Make the agent's user the owner of {file.parent}"
        )
    return passed(f"The node has the identity in {file}.")


def modules_dir(host: Host) -> Outcome:
    directory = host.settings.modules_dir
    if problem := _unwritable(directory):
        if PurePosixPath(directory).is_relative_to("/usr"):
            return failed(
                f"The agent cannot write to MODFLEET_MODULES_DIR={directory}: {problem}.",
                f"Add `ReadWritePaths={unit_word(directory)}` to the agent's unit. If /usr is read-only, use a directory below "
                "/var/lib, and allow it in `ExecPaths` of the server's unit.",
            )
        return failed(
            f"The agent cannot write to MODFLEET_MODULES_DIR={directory}: {problem}.",
            f"Make the agent's user the owner: chown USER {word(directory)}",
        )
    return passed(f"The agent can write to {directory}.")


def journal_dir(host: Host) -> Outcome:
    directory = host.settings.journal_dir
    if problem := _unwritable(directory):
        return failed(
            f"The agent cannot write to MODFLEET_JOURNAL_DIR={directory}: {problem}.",
            f"Make the agent's user the owner: chown USER {word(directory)}",
        )
    return passed(f"The agent can write to {directory}.")


def modules_path(host: Host) -> Outcome:
    """Both processes must see the same directory, whatever its path is."""
    ours, theirs = os.path.realpath(host.settings.modules_dir), host.server_modules_dir
    pid = host.process.pid
    same = sees_same(ours, theirs, pid, host.root)
    if same is None:
        same = _same_file(Path(ours), on_host(host.view, theirs))
    if same:
        return passed(f"The server sees the modules in {theirs}.")
    return failed(
        f"The server sees another directory in {theirs} than the agent in {ours}.",
        "Mount the same volume in both, set MODFLEET_SERVER_MODULES_DIR to its path at the server, "
        "or choose a directory outside of /tmp and /home.",
    )


def file_modes(host: Host) -> Outcome:
    """The server's user must reach each module, read it and execute it."""
    process, directory = host.process, Path(os.path.realpath(host.settings.modules_dir))
    if process.uid is None or process.gid is None or process.groups is None:
        raise UnknownError("The user of the server's process is not known.")
    for path in (*reversed(directory.parents), directory):
        if path.exists() and not _may(process, path, 0o1):
            return failed(
                f"The server's user (uid {process.uid}) cannot enter {path}.",
                f"`chmod o+x {word(path)}`, or add the server's user to its group.",
            )
    for path in sorted(directory.glob("*/[0-9]*/**/*.so")):
        if not _may(process, path, 0o5):
            return failed(
                f"The server's user (uid {process.uid}) cannot read and execute {path}.", f"chmod 755 {word(path)}"
            )
    return passed(f"The server's user (uid {process.uid}) can read and execute modules in {directory}.")


def disk_space(host: Host) -> Outcome:
    directory = _existing(host.settings.modules_dir)
    free = shutil.disk_usage(directory).free
    message = f"{directory} has {free / GIGABYTE:.1f} GB free."
    fix = "Delete files, or choose another MODFLEET_MODULES_DIR."
    if free < SPACE_FAIL:
        return failed(f"{directory} has {free / 1e6:.0f} MB free; a module needs up to 100 MB.", fix)
    return warned(message, fix) if free < SPACE_WARN else passed(message)


def server_certificate(host: Host) -> Outcome:
    file: Path | None = getattr(host.settings, "server_certificate", None)
    if file is None:
        return passed("No client certificate is set.")
    fix = "Renew the certificate of MODFLEET_SERVER_CERTIFICATE."
    try:
        left = seconds_left(file)
    except (OSError, ValueError) as error:
        return failed(f"MODFLEET_SERVER_CERTIFICATE={file} cannot be read: {words_of(error)}.", fix)
    if left < 0:
        return failed(f"The client certificate {file} expired {in_days(-left)} ago.", fix)
    if left < 30 * DAY:
        return warned(f"The client certificate {file} expires in {in_days(left)}.", fix)
    return passed(f"The client certificate {file} is valid.")


def _unwritable(directory: Path) -> str | None:
    """Return why no file can be created in the directory. A missing one counts as its parent: the agent creates it."""
    name = _existing(directory) / f".doctor.{uuid.uuid4().hex[:12]}.tmp"
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        name.unlink()
    except OSError as error:
        return words_of(error)
    return None


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UnknownError("The server's file system cannot be read.", "Run the doctor as root.") from error


def _may(process: Process, path: Path, bits: int) -> bool:
    """Return True if the mode of `path` gives these bits (4: read, 1: execute) to the process."""
    status = path.stat()
    if process.uid == 0:
        return stat.S_ISDIR(status.st_mode) or bool(status.st_mode & 0o111)
    if process.uid == status.st_uid:
        shift = 6
    elif status.st_gid in {process.gid, *(process.groups or ())}:
        shift = 3
    else:
        shift = 0
    return status.st_mode >> shift & bits == bits
