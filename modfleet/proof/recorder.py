"""One client process of a proof: it sends commands, and writes down each call in its history.

    python -m modfleet.proof.recorder < orders

The first line of standard input is a JSON array of `Client`s, each of which gets a thread. Each further line is a JSON array: the
modules to use from now on. The process answers with the same line as soon as no command of any other module is under way. The end of
standard input ends it, after the commands under way have been answered.
"""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
import redis

import decoding
from modfleet.proof.history import Call, Journal, Kind, history_file
from modfleet.proof.own_commands import Commands, OwnCommands, OwnQuestions
from modfleet.proof.paths import AnyPath, words_of
from modfleet.proof.paths import Path as Connections
from modfleet.proof.workload import Answer, Lists, Questions, Step, Workload

#: The time between a failed call and the next attempt, seconds.
RETRY_PAUSE = 0.005
#: The same for a client with few calls per second. It must be short, compared with the 2 s that a call may take.
LONGEST_RETRY_PAUSE = 0.1
#: After the end was asked for, a call is repeated for so long, seconds. A call that is never answered is in the history as such.
LAST_ATTEMPTS = 30.0


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """What one client does. `pace`: the time between two calls, seconds."""

    name: str
    folder: str
    seed: int
    path: AnyPath
    pace: float = 0.002
    #: True if it only asks for versions, of one server.
    asks: bool = False
    #: The server that it asks, if the address says too little.
    server: str = ""
    #: The commands of a user's own module; without them, those of the project's own.
    commands: Commands | None = None

    def workload(self) -> Workload:
        random = Random(f"{self.seed} {self.name}")  # noqa: S311 - a seed makes it repeatable
        if self.commands is None:
            return Questions() if self.asks else Lists(client=self.name, random=random)
        own = self.commands
        return OwnQuestions(own) if self.asks else OwnCommands(own, client=self.name, random=random)


class Recorder:
    """One client: runs in a thread, and is given orders from another."""

    def __init__(self, client: Client, workload: Workload) -> None:
        self._client, self._workload = client, workload
        self._orders: queue.SimpleQueue[tuple[list[str], threading.Event]] = queue.SimpleQueue()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name=client.name)
        self._thread.start()

    def use(self, modules: list[str]) -> threading.Event:
        """Use these modules only. The event is set as soon as that is so."""
        done = threading.Event()
        self._orders.put((modules, done))
        return done

    def end(self) -> None:
        self._ends.set()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            self._record()
        except BaseException:  # noqa: BLE001 - the outermost loop of the thread: without this client, nothing is proven
            traceback.print_exc()
            os._exit(1)

    def _record(self) -> None:
        with Journal(history_file(Path(self._client.folder), self._client.name)) as journal:
            connections = _opened(self._client.path, self._ends)
            while not self._ends.wait(self._client.pace):
                self._take_orders()
                if step := self._workload.next():
                    self._carry_out(step, connections, journal)
            connections.close()

    def _take_orders(self) -> None:
        while not self._orders.empty():
            modules, done = self._orders.get()
            self._workload.use(modules)
            done.set()

    def _carry_out(self, step: Step, connections: Connections, journal: Journal) -> None:
        """Repeat the command until it is answered."""
        attempt, last = 1, 0.0
        while True:
            call = self._call(step, attempt, connections)
            journal.append(call)
            if call.is_acknowledged:
                return
            if self._ends.is_set():
                last = last or time.monotonic() + LAST_ATTEMPTS
                if step.kind is Kind.ASK or time.monotonic() > last:
                    return
            attempt += 1
            time.sleep(min(max(RETRY_PAUSE, self._client.pace), LONGEST_RETRY_PAUSE))

    def _call(self, step: Step, attempt: int, connections: Connections) -> Call:
        server, address, error = self._client.server, "", ""
        called_at = time.monotonic()
        try:
            reply, address = connections.call(step.words, step.key)
        except redis.RedisError as refused:
            reply, error = None, words_of(refused)
        except UnicodeDecodeError as misread:
            reply, error = None, f"misread: {misread}"
        answered_at = time.monotonic()
        answer = Answer()
        if not error:
            try:
                answer = self._workload.read(step, reply)
            except ValueError as misread:
                error = f"misread: {misread}"
        return Call(
            client=self._client.name,
            called_at=called_at,
            answered_at=answered_at,
            kind=step.kind,
            module=step.module,
            key=step.key,
            entry=step.entry,
            attempt=attempt,
            error=error,
            server=answer.server or server or address,
            configuration=answer.configuration,
            entries=answer.entries,
        )


def _opened(path: AnyPath, ends: threading.Event) -> Connections:
    """Connect. A client of a cluster needs an answer for that, and no server may give one now."""
    while True:
        try:
            return path.open()
        except redis.RedisError:
            if ends.wait(RETRY_PAUSE):
                raise


def run(recorders: Sequence[Recorder]) -> None:
    """Pass on the orders that come from standard input, until it ends."""
    for line in sys.stdin:
        modules = decoding.decode(line, list[str])
        for done in [each.use(modules) for each in recorders]:
            done.wait()
        sys.stdout.write(line)
        sys.stdout.flush()
    for each in recorders:
        each.end()
    for each in recorders:
        each.join()


def main() -> None:
    clients = decoding.decode(sys.stdin.readline(), list[Client])
    run([Recorder(each, each.workload()) for each in clients])


if __name__ == "__main__":
    main()
