"""The client processes of a proof: they record while the operator works."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from modfleet.proof.history import CONTROL
from modfleet.proof.paths import AnyPath, PlainPath
from modfleet.proof.recorder import Client
from tests.fleet import ROOT
from tests.proof.packages import MODULES, arguments, compiled
from tests.shards import Machine

#: Clients that write.
WRITERS = 4
#: Between two calls of a client, seconds: the clients leave time for the servers and agents on the same machine.
PACE, ASKING_PACE = 0.004, 0.02


class Clients:
    """Four processes with one client each, one that asks each server for its versions, and one client on a server of its own."""

    def __init__(self, folder: Path, path: AnyPath, machines: Sequence[Machine], control: Machine, seed: int) -> None:
        def client(name: str, way: AnyPath, **fields: object) -> Client:
            given = {"name": name, "folder": str(folder), "seed": seed, "path": way, "pace": PACE, **fields}
            return msgspec.convert(given, Client)

        self._writers = [Process([client(f"writer-{number}", path)]) for number in range(1, WRITERS + 1)]
        self._control = Process([client(CONTROL, socket_of(control))])
        asking = [
            client(f"asker-{name}", socket_of(each), asks=True, server=name, pace=ASKING_PACE)
            for each in machines
            for name in [each.folder.name]
        ]
        self._asking = Process(asking)
        self._control.use([each for each in MODULES if MODULES[each].has_entries])
        self._asking_for: list[str] = []

    def use(self, modules: Sequence[str]) -> None:
        """Send commands of these modules only. Returns as soon as that is so."""
        self._asking.use(list(modules))
        for each in self._writers:
            each.use([name for name in modules if MODULES[name].has_entries])

    def end(self) -> None:
        """Wait until each client has got its last answer."""
        processes = [*self._writers, self._asking, self._control]
        for each in processes:
            each.close()
        for each in processes:
            each.wait()

    def kill(self) -> None:
        for each in [*self._writers, self._asking, self._control]:
            each.kill()


class Process:
    """One recorder process."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "modfleet.proof.recorder"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._send(clients)

    def use(self, modules: list[str]) -> None:
        self._send(modules)
        assert self._process.stdout
        assert self._process.stdout.readline(), "a client has ended"

    def _send(self, order: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()

    def wait(self) -> None:
        code = self._process.wait()
        self._close_pipes()
        assert code == 0, "a client has failed"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for each in (self._process.stdin, self._process.stdout):
            assert each
            with suppress(BrokenPipeError):
                each.close()


def socket_of(machine: Machine) -> PlainPath:
    return PlainPath(urls=(f"unix://{machine.socket}",))


@contextmanager
def untouched(folder: Path, binary: Path) -> Iterator[Machine]:
    """A server that nothing changes, with version 1 of each module."""
    folder.mkdir()
    lines = [
        f"loadmodule {compiled(folder, module, 1)} {arguments(1)}" for module in MODULES.values() if module.has_entries
    ]
    control = Machine(CONTROL, folder, binary, extra=lines).start()
    try:
        yield control
    finally:
        control.stop()
