"""The host: its file system, users and units. All else in this package goes through it, so that tests need no root."""

import errno
import grp
import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from durable import write_file
from modfleet.failure import CommandError

#: The user that the agents of a host run as.
AGENT_USER = "modfleet-agent"


class Host:
    """A host of which only files are changed, below `root`. They belong to the calling user. It has no units."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    #: This host has systemd, and the caller may use it.
    has_units = False

    @property
    def options(self) -> str:
        """Return the options with which a further command finds the same files, after a space."""
        if self.has_units:
            return ""
        return " --no-service" if self.root == Path("/") else f" --root {shlex.quote(str(self.root))}"

    def path(self, absolute: str) -> Path:
        """Return where a file of the host is written."""
        return self.root / absolute.lstrip("/")

    def seen(self, absolute: str) -> str:
        """Return the path by which the agent and the server find this file."""
        return str(self.path(absolute))

    def editable(self, absolute: str) -> Path | None:
        """Return a file of another program that may be edited; None if it is not below `root`."""
        path = Path(absolute)  # the server names it: it may have `..`, or directories that are links
        return path if path.resolve().is_relative_to(self.root.resolve()) and path.is_file() else None

    def create_user(self, name: str) -> bool:
        """Return True if the system user did not exist."""
        return False

    def own(self, path: Path, user: str) -> bool:
        """Make `user` the owner of the file. Return True if the owner was another one. Raises: `CommandError`."""
        return False

    def reload_units(self) -> None:
        pass

    def start(self, unit: str, *, again: bool) -> bool:
        """Start the unit now and at each boot; start it `again` if it runs. Return True if anything was done."""
        return False

    def stop(self, unit: str) -> bool:
        """Stop the unit, and start it no more at boot. Return True if it was running or enabled."""
        return False

    # --- Files --------------------------------------------------------------------------------------------------------

    def make_directory(self, absolute: str, *, mode: int, owner: str = "") -> bool:
        """Return True if anything changed."""
        path = self.path(absolute)
        is_new = not path.is_dir()
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        with opened(path) as file:
            changed = os.fstat(file).st_mode & 0o7777 != mode
            os.fchmod(file, mode)
        return self.own(path, owner) | is_new | changed if owner else is_new | changed

    def read(self, absolute: str) -> str:
        """Return the text of a file, empty if there is none. Raises: `CommandError`."""
        path = self.path(absolute)
        if not path.exists():
            return ""
        with opened(path) as file:
            return os.read(file, 64 * 1024).decode(errors="replace")

    def write(self, absolute: str, content: bytes, *, mode: int, owner: str = "") -> bool:
        """Return True if anything changed."""
        path = self.path(absolute)
        same = path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode
        if not same:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_file(path, content, mode=mode)
        return self.own(path, owner) | (not same) if owner else not same

    def delete(self, absolute: str) -> bool:
        """Delete a file or a directory with all that is in it. Return True if it existed."""
        path = self.path(absolute)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            return True
        existed = path.exists() or path.is_symlink()
        path.unlink(missing_ok=True)
        return existed

    def remove_empty(self, absolute: str) -> None:
        """Delete the directory if nothing is in it."""
        with suppress(OSError):
            self.path(absolute).rmdir()


class SystemHost(Host):
    """This host, for its administrator."""

    has_units = True

    def __init__(self) -> None:
        super().__init__(Path("/"))

    def create_user(self, name: str) -> bool:
        try:
            pwd.getpwnam(name)
        except KeyError:
            home = "/var/lib/modfleet-agent"
            _run("useradd", "--system", "--home-dir", home, "--no-create-home", "--shell", "/usr/sbin/nologin", name)
            return True
        return False

    def own(self, path: Path, user: str) -> bool:
        entry = pwd.getpwnam(user)
        with opened(path) as file:
            found = os.fstat(file)
            if (found.st_uid, found.st_gid) == (entry.pw_uid, entry.pw_gid):
                return False
            os.fchown(file, entry.pw_uid, entry.pw_gid)
        return True

    def reload_units(self) -> None:
        _run("systemctl", "daemon-reload")

    def start(self, unit: str, *, again: bool) -> bool:
        runs = _is("is-active", unit) and _is("is-enabled", unit)
        if not runs:
            _run("systemctl", "enable", "--now", unit)
        elif again:
            _run("systemctl", "restart", unit)
        return again or not runs

    def stop(self, unit: str) -> bool:
        known = _is("is-active", unit) or _is("is-enabled", unit)
        if known:
            _run("systemctl", "disable", "--now", unit)
        return known


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file or directory, but no link: the agent's user could lead root to a file of others. Raises: `CommandError`."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise CommandError(f"{path} cannot be used: {reason}.") from error
    try:
        yield file
    finally:
        os.close(file)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is(question: str, unit: str) -> bool:
    return subprocess.run(["systemctl", "--quiet", question, unit], check=False, capture_output=True).returncode == 0  # noqa: S603, S607 - fixed words


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603 - fixed words
    except OSError as error:
        raise CommandError(
            f"`{words[0]}` cannot be run: {error.strerror}. Use --no-service without systemd."
        ) from error
    if done.returncode:
        said = " ".join(done.stderr.split()).rstrip(".") or f"exit code {done.returncode}"
        raise CommandError(f"`{' '.join(words)}` failed: {said}.")
