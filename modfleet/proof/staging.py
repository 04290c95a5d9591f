"""A proof against a user's own fleet and module: the recorders, the servers' final data, and the clean-up.

Nothing is flushed and no keys are listed: only keys that the histories name are read at the end, and deleted.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
import redis

import decoding
from modfleet.failure import CommandError, UsageError
from modfleet.proof.history import FINAL, Call, Dump, Kind, changes_file, read_calls, write_dump
from modfleet.proof.own_commands import OPEN_KEYS, Commands, filled
from modfleet.proof.paths import Path as Connections
from modfleet.proof.paths import words_of
from modfleet.proof.recorder import LAST_ATTEMPTS, Client
from modfleet.proof.staging_file import Staging
from modfleet.proof.topology import (
    Server,
    Topology,
    connected,
    find_servers,
    path_in,
    path_to_server,
    read_keys,
    wait_until_in_step,
)

#: Each server is asked for its version so often: seconds between two questions.
QUESTION_PAUSE = 0.2
#: How often a key is deleted again if that fails, and the pauses between, seconds.
DELETIONS, DELETION_PAUSE = 20, 0.5
#: After so many errors, the next attempt begins.
DELETION_ERRORS = 10
#: How long a server may be away when the proof begins, and the pause between two looks, seconds.
ARRIVAL, ARRIVAL_PAUSE = 10.0, 0.5
#: How long a recorder may take to end after its last attempt, seconds.
ENDING = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What the histories have so far."""

    acknowledged: int = 0
    errors: int = 0


class _Recorder:
    """A process that records. It ends with this one: the end of its standard input ends it."""

    def __init__(self, clients: Sequence[Client]) -> None:
        # A session of its own: Ctrl-C ends a recorder through its input only, after its last answers.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "modfleet.proof.recorder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.send(clients)

    def send(self, line: object) -> None:
        stdin = _pipe(self._process.stdin)
        try:
            stdin.write(msgspec.json.encode(line) + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise _ENDED from None

    def wait_for_answer(self) -> None:
        if not _pipe(self._process.stdout).readline():
            raise _ENDED

    def require(self) -> None:
        """Raise `CommandError` if the process has ended."""
        if self._process.poll() is not None:
            raise _ENDED

    def end(self) -> None:
        with suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()

    def join(self, due: float) -> bool:
        """Wait until the process has ended. It is killed at this time. Return True if it has written down all that it did."""
        try:
            self._process.wait(max(0.0, due - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()
        return self._process.returncode == 0


_ENDED = CommandError("A process that records has ended. Its last words are above.")


def _pipe(pipe: "IO[bytes] | None") -> "IO[bytes]":
    if pipe is None:
        raise ValueError("the process has no such pipe")
    return pipe


class Proof:
    """One proof in its folder. `commands`: with the prefix of this run."""

    def __init__(self, staging: Staging, folder: Path, *, seed: int, run: str) -> None:
        self.staging, self.folder, self.seed = staging, folder, seed
        prefix = f"{staging.commands.prefix}{run}:"
        self.commands: Commands = msgspec.structs.replace(staging.commands, prefix=prefix)
        #: The servers at the start, and at the end.
        self.before, self.after = Topology(servers={}), Topology(servers={})
        #: The module's version on each server at the start, and at the end.
        self.versions: dict[str, str] = {}
        self.versions_at_the_end: dict[str, str] = {}
        self._recorders: list[_Recorder] = []
        self._counted = Counted()
        #: How much of each history has been counted, bytes.
        self._read: dict[Path, int] = {}

    # --- Before -------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Find the servers, and try each command once. Raises: `UsageError` with what a person must change."""
        self.before = self.after = self._all_servers()
        self.staging = msgspec.structs.replace(self.staging, path=path_in(self.staging.path, self.before))
        for server in self.before.servers.values():
            self.versions[server.address] = self._version_on(server)
            if not self.versions[server.address]:
                raise UsageError(
                    f"{self.commands.module} is not loaded on {server.address}. Install it first: the clients of a proof call it "
                    "from the start."
                )
        self._try_commands()

    def _all_servers(self) -> Topology:
        """Return the servers. One that was just restarted gets some time. Raises: `UsageError` if one cannot be reached."""
        due = time.monotonic() + ARRIVAL
        while True:
            try:
                found = find_servers(self.staging.path)
            except redis.RedisError as error:
                raise UsageError(f"No server can be used: {str(error).rstrip('.')}.") from error
            if not found.unreached:
                return found
            if time.monotonic() > due:
                address, reason = next(iter(found.unreached.items()))
                raise UsageError(
                    f"{address} cannot be reached: {reason.rstrip('.')}. Another server names it, and a proof reads each master and "
                    "replica."
                )
            time.sleep(ARRIVAL_PAUSE)

    def _version_on(self, server: Server) -> str:
        try:
            with connected(self.staging.path, server.address) as client:
                return self.commands.version_in(client.execute_command(*self.commands.version))
        except redis.RedisError as error:
            raise UsageError(
                f"{server.address} does not answer {' '.join(self.commands.version)}: {words_of(error)}."
            ) from error
        except ValueError as error:
            raise UsageError(f"commands.version: {error}. It must answer the version as in module.json.") from error

    def _try_commands(self) -> None:
        key, name = f"{self.commands.prefix}try", "get"
        connections = None
        try:
            connections = self.staging.path.open()
            if found := self._reading(connections, key):
                raise UsageError(
                    f"commands.get: it reads {list(found)} from a key that was never written. Check entries_at."
                )
            name = "delete"  # before there is a key: without the right to do this, it would be left
            connections.call(filled(self.commands.delete, key), key)
            name = self.commands.kind.value
            for entry in (1, 2):
                connections.call(self.commands.step(self.commands.kind, key, entry).words, key)
            name = "get"
            found, expected = self._reading(connections, key), (1, 2) if self.commands.kind is Kind.ADD else (2,)
            if found != expected:
                raise UsageError(
                    f"commands.get: {key} has {list(found)} after 1 and 2 were written, not {list(expected)}."
                )
            name = "delete"
            connections.call(filled(self.commands.delete, key), key)
            if self._reading(connections, key):
                raise UsageError(f"commands.delete: {key} is still there.")
        except redis.RedisError as error:
            raise UsageError(f"commands.{name} failed: {words_of(error)}.") from error
        except ValueError as error:
            raise UsageError(f"commands.get: {error}.") from error
        finally:
            if connections:
                with suppress(redis.RedisError):
                    connections.call(filled(self.commands.delete, key), key)
                connections.close()

    def _reading(self, connections: Connections, key: str) -> tuple[int, ...]:
        return self.commands.entries(connections.call(self.commands.step(Kind.GET, key).words, key)[0])

    # --- Recording ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process for each client, and one that asks the servers for their versions. They write until `end`."""
        changes_file(self.folder).touch()
        pace = self.staging.clients / self.staging.rate
        clients = [[self._client(f"client{number}", pace)] for number in range(1, self.staging.clients + 1)]
        observers = [
            msgspec.structs.replace(
                self._client(f"observer{number}", QUESTION_PAUSE),
                path=path_to_server(self.staging.path, address),
                asks=True,
                server=address,
            )
            for number, address in enumerate(self.before.servers, 1)
        ]
        for each in (*clients, observers):
            self._recorders.append(_Recorder(each))
        for recorder in self._recorders:
            recorder.send([self.commands.module])
        for recorder in self._recorders:
            recorder.wait_for_answer()

    def _client(self, name: str, pace: float) -> Client:
        return Client(
            name=name,
            folder=str(self.folder),
            seed=self.seed,
            path=self.staging.path,
            pace=pace,
            commands=self.commands,
        )

    def count(self) -> Counted:
        """Return what the histories have now. Raises: `CommandError` if a recorder has ended."""
        for path in sorted(self.folder.glob("history-*.ndjson")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            errors = sum(bool(_CALL.decode(line).error) for line in whole.splitlines())
            self._counted = Counted(
                acknowledged=self._counted.acknowledged + whole.count(b"\n") - errors,
                errors=self._counted.errors + errors,
            )
        for each in self._recorders:
            each.require()
        return self._counted

    def end(self) -> None:
        """End the recorders after their last answers. Raises: `CommandError` if a history has not all that its clients did."""
        for each in self._recorders:
            each.end()
        due = time.monotonic() + LAST_ATTEMPTS + ENDING
        complete = [each.join(due) for each in self._recorders]
        self._recorders.clear()
        if not all(complete):
            raise _ENDED

    # --- After --------------------------------------------------------------------------------------------------------

    def dump(self, progress: Callable[[str], None]) -> list[str]:
        """Write what each server has at the end. Return what could not be read, with the reason.

        Raises: `redis.RedisError` if no server answers.
        """
        self.after = find_servers(self.staging.path, self.before.servers)
        notes = [f"{address} was not read: {reason}" for address, reason in self.after.unreached.items()]
        notes += [f"A replica is behind: {each}" for each in wait_until_in_step(self.staging.path, self.after)]
        keys = self.keys()
        for server in self.after.servers.values():
            progress(f"reading {server.address}")
            try:
                found = read_keys(self.staging.path, self.after, server, self.commands, keys, self._pause)
                version = self._version_on(server)
            except (redis.RedisError, ValueError, UsageError) as error:
                notes.append(f"{server.address} was not read: {error}")
                continue
            self.versions_at_the_end[server.address] = version
            modules = {self.commands.module: version} if version else {}
            write_dump(self.folder, FINAL, Dump(server=server.address, master=server.master, modules=modules), found)
        return notes

    def keys(self) -> list[str]:
        """Return all keys that the clients have written, or may have written."""
        found: dict[str, None] = {}
        for path in sorted(self.folder.glob("history-client*.ndjson")):
            found |= dict.fromkeys(each.key for each in read_calls(path) if each.entry)
        return list(found)

    def clean_up(self, progress: Callable[[str], None]) -> list[str]:
        """Delete all keys of this run, by their names. Return the keys that are left, with the reason."""
        keys = self.keys()
        # A client whose process has died may have begun with another key, and not written that down.
        highest = max((int(each.rpartition(":")[2]) for each in keys), default=OPEN_KEYS - 1)
        clients = range(1, self.staging.clients + 1)
        keys = [f"{self.commands.prefix}client{client}:{number}" for client in clients for number in range(highest + 2)]
        if not keys:
            return []
        progress(f"deleting the keys {self.commands.prefix}*")
        left: dict[str, str] = dict.fromkeys(keys, "")
        for attempt in range(DELETIONS):
            if attempt:
                time.sleep(DELETION_PAUSE)
            self._delete(left)
            if not left:
                break
        return [f"{key}: {reason}" for key, reason in left.items()]

    def _delete(self, left: dict[str, str]) -> None:
        """Delete each of these keys. Those that are deleted are left out; the others get the reason.

        After some errors it ends. Keys with an error are the last ones then: the shard of the others may work.
        """
        try:
            connections = self.staging.path.open()
        except redis.RedisError as error:
            left |= dict.fromkeys(left, words_of(error))
            return
        errors = 0
        try:
            for key in list(left):
                self._pause()
                del left[key]
                try:
                    connections.call(filled(self.commands.delete, key), key)
                except redis.RedisError as error:
                    left[key] = words_of(error)
                    errors += 1
                    if errors == DELETION_ERRORS:  # the next attempt has new connections
                        left |= {each: reason or words_of(error) for each, reason in left.items()}
                        return
        finally:
            connections.close()

    def _pause(self) -> None:
        time.sleep(1 / self.staging.rate)


_CALL = decoding.decoder(Call)


def longest_wait(folder: Path, quiet: Callable[[float, float], bool]) -> float:
    """Return the longest time from a client's first attempt to its acknowledgement, of those for which `quiet` is true, seconds."""
    longest = 0.0
    for path in folder.glob("history-*.ndjson"):
        first = 0.0
        for call in read_calls(path):
            first = call.called_at if call.attempt == 1 else first
            if call.is_acknowledged and quiet(first, call.answered_at):
                longest = max(longest, call.answered_at - first)
    return longest


def shape(topology: Topology) -> str:
    """Return the topology in words: `2 masters, 3 replicas`."""
    masters = len(topology.masters)
    replicas = len(topology.servers) - masters
    return f"{_counted(masters, 'master')}, {_counted(replicas, 'replica')}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
