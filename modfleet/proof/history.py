"""The files that a proof is made of: what clients saw, what the operator did, and what the servers have at the end.

All times are seconds of the monotonic clock, which all processes of one machine share. A folder of a proof has these files:

    history-<client>.ndjson     a `Call` in each line, appended as soon as its answer is there
    changes.ndjson              a `Change` in each line, appended when it has ended
    dump-<moment>-<server>.ndjson  a `Dump`, then a pair [key, entries] in each line
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Self, TypeVar

import msgspec

import decoding

#: The client on a server of its own that nothing changes. Its longest stall is what the machine does to any client.
CONTROL = "control"


Record = TypeVar("Record")


class Kind(StrEnum):
    """What a call does."""

    #: Append an entry to the list at the key.
    ADD = "add"
    #: Replace the value at the key.
    SET = "set"
    #: Read the key.
    GET = "get"
    #: Ask one server for its version of the module. No key.
    ASK = "ask"


class Call(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One command that a client has sent, and what came back.

    A client has one call at a time. Each key belongs to one client. It writes the entries 1, 2, 3, ... to it in this order. If a
    call fails, the client repeats it, as the next `attempt`, until it is answered.
    """

    client: str
    called_at: float
    answered_at: float
    kind: Kind
    module: str
    #: Empty for `ASK`.
    key: str
    #: The entry that `ADD` or `SET` writes, else 0.
    entry: int
    #: 1, or more if the calls of this client directly before were the same and failed.
    attempt: int
    #: What came back instead of an answer, empty if there was one. What a server has said is there word for word; what no server
    #: said begins with `closed:` (the connection ended, or could not be made) or `timeout:`.
    error: str = ""
    #: The server that answered, or was asked: empty if not known.
    server: str = ""
    #: The module's version and arguments that answered, such as `2 limit=5`; empty if not known.
    configuration: str = ""
    #: What the key has, as the answer says: its entries in order for a list, the one entry for a value.
    entries: tuple[int, ...] = ()

    @property
    def is_acknowledged(self) -> bool:
        return not self.error

    @property
    def may_have_happened(self) -> bool:
        """Return True if the server may have executed the command: it was answered, or nothing came back."""
        return not self.error or self.error.startswith(("closed:", "timeout:"))


class Way(StrEnum):
    """How a change reaches the servers."""

    #: The running server loads and unloads modules.
    LOAD = "load"
    #: Each server is restarted, and masters fail over first.
    RESTART = "restart"


class Change(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the operator has done, from the request to its end."""

    #: The rollout's uid, empty if the change is no rollout. A rollout may be several changes, such as one for each node.
    uid: str
    #: What it is for a reader: install, upgrade, remove, rollback, failed upgrade, restart, kill, ...
    action: str
    started_at: float
    ended_at: float
    #: Empty if it changes no module.
    module: str = ""
    #: The servers that it may change.
    servers: tuple[str, ...] = ()
    way: Way = Way.LOAD
    #: The configuration before and after, as in `Call.configuration`; empty: the module was not there.
    before: str = ""
    after: str = ""
    #: True if some servers may have had `after` in between, and all have `before` at the end.
    is_undone: bool = False
    #: True if a server or a connection was hurt on purpose: what clients get then is not the work of the change.
    is_fault: bool = False


class Dump(msgspec.Struct, frozen=True, kw_only=True):
    """What one server has: the first line of a dump. Each line after it has a key and its entries."""

    server: str
    #: The server it copies; empty for a master.
    master: str = ""
    #: The name of each module, and its configuration.
    modules: dict[str, str] = {}


#: The moments of a dump: when all changes have ended and no client writes, and after a restart of every server then.
FINAL, RESTARTED = "final", "restarted"


class Journal:
    """Appends records to a file. A record is in the file when `append` returns. It raises `OSError`, such as on a full disk."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("ab", buffering=0)
        self._encode = msgspec.json.Encoder().encode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, record: Call | Change) -> None:
        line = self._encode(record) + b"\n"
        if self._file.write(line) != len(line):
            raise OSError("only a part of a record could be written")


def history_file(folder: Path, client: str) -> Path:
    return folder / f"history-{client}.ndjson"


def changes_file(folder: Path) -> Path:
    return folder / "changes.ndjson"


def read_calls(path: Path) -> Iterator[Call]:
    """Yield the calls of one client in the order of its calls. A last line that was cut off by a kill is left out."""
    return _read(path, decoding.decoder(Call))


def read_changes(folder: Path) -> Iterator[Change]:
    return _read(changes_file(folder), decoding.decoder(Change))


def _read(path: Path, decoder: "msgspec.json.Decoder[Record]") -> Iterator[Record]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)


def write_dump(folder: Path, moment: str, dump: Dump, keys: dict[str, tuple[int, ...]]) -> None:
    with (folder / f"dump-{moment}-{dump.server}.ndjson").open("wb") as file:
        file.write(msgspec.json.encode(dump) + b"\n")
        file.writelines(msgspec.json.encode(pair) + b"\n" for pair in sorted(keys.items()))


def read_dumps(folder: Path, moment: str) -> Iterator[tuple[Dump, dict[str, tuple[int, ...]]]]:
    """Yield each server's dump of the moment, with the entries of each key."""
    for path in sorted(folder.glob(f"dump-{moment}-*.ndjson")):
        with path.open("rb") as file:
            dump = decoding.decode(file.readline(), Dump)
            pairs = (decoding.decode(line, tuple[str, tuple[int, ...]]) for line in file)
            yield dump, dict(pairs)
