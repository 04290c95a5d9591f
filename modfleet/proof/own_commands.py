"""What the clients of a proof do in a user's own fleet: the commands of a user's own module."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from modfleet.proof.history import Kind
from modfleet.proof.workload import Answer, Step

#: A client writes to so many keys by turns: they are in many slots of a cluster.
OPEN_KEYS = 8
#: After so many entries, another key takes the place of this one.
LONGEST = 50
#: `MODULE LIST` names the modules of a server with their versions.
MODULE_LIST = ("MODULE", "LIST")


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """The user's commands. `{key}` and `{entry}` stand for a key and for the entry to write."""

    module: str
    #: What each key begins with.
    prefix: str
    #: `ADD` or `SET`: what `write` does.
    kind: Kind
    write: tuple[str, ...]
    get: tuple[str, ...]
    delete: tuple[str, ...]
    #: Answers the module's version; `MODULE_LIST` if the user has named none.
    version: tuple[str, ...] = MODULE_LIST
    #: The position of the entries in the answer of `get`, if that is an array with more than the entries.
    entries_at: int | None = None

    def step(self, kind: Kind, key: str, entry: int = 0) -> Step:
        """Return the command that writes the entry, or reads the key."""
        words = self.get if kind is Kind.GET else self.write
        return Step(kind=kind, module=self.module, key=key, entry=entry, words=filled(words, key, entry))

    def entries(self, reply: Any) -> tuple[int, ...]:
        """Return the entries that an answer of `get` has. Raises: `ValueError`."""
        if self.entries_at is None or reply is None:
            return entries_of(reply)
        if not isinstance(reply, list) or len(reply) <= self.entries_at:
            raise ValueError(f"{_shown(reply)} is no array with an element {self.entries_at}")
        return entries_of(reply[self.entries_at])

    def version_in(self, reply: Any) -> str:
        """Return the version that an answer of `version` has, empty if the module is not loaded. Raises: `ValueError`."""
        if self.version != MODULE_LIST:
            return str(_number(reply))
        listed = [dict(zip(each[::2], each[1::2], strict=True)) for each in reply]
        return next((str(each["ver"]) for each in listed if each["name"] == self.module), "")


def filled(words: Sequence[str], key: str, entry: int = 0) -> tuple[str, ...]:
    """Return the words with the key and the entry in their places."""
    return tuple(each.replace("{entry}", str(entry)).replace("{key}", key) for each in words)


def entries_of(reply: Any) -> tuple[int, ...]:
    """Return the numbers in an array, in a text such as `1,2,3` or `[1,2,3]`, or the one number. Raises: `ValueError`."""
    match reply:
        case None:
            return ()
        case list():
            return tuple(map(_number, reply))
        case str():
            text = reply.strip("[] ")
            return tuple(map(_number, text.split(","))) if text else ()
        case _:
            return (_number(reply),)


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{_shown(value)} is no whole number") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


@dataclass(slots=True)
class OwnCommands:
    """The commands of one client. Two of three calls append an entry to a list. A value is read before the next one replaces it. Without
    that read, the loss of a value would not be seen.
    """

    commands: Commands
    client: str
    random: Random
    modules: list[str] = field(default_factory=list)
    #: The newest entry of each key that is written to, by the key's number.
    _newest: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(OPEN_KEYS), 0))
    #: The key whose value was read by the last command, and is replaced by the next one.
    _read: int | None = None

    def use(self, modules: list[str]) -> None:
        self.modules = modules

    def next(self) -> Step | None:
        if not self.modules:
            return None
        number, was_read = self.random.choice(list(self._newest)), False
        if self._read is not None:
            number, was_read, self._read = self._read, True, None
        key, entry = f"{self.commands.prefix}{self.client}:{number}", self._newest[number]
        if entry and not was_read and self._reads(number):
            return self.commands.step(Kind.GET, key)
        self._newest[number] = entry + 1
        if entry + 1 == LONGEST:
            del self._newest[number]
            self._newest[max(number, *self._newest) + 1] = 0
        return self.commands.step(self.commands.kind, key, entry + 1)

    def _reads(self, number: int) -> bool:
        if self.commands.kind is Kind.SET:
            self._read = number
            return True
        return self.random.random() < 1 / 3

    def read(self, step: Step, reply: Any) -> Answer:
        return Answer(entries=self.commands.entries(reply)) if step.kind is Kind.GET else Answer()


@dataclass(slots=True)
class OwnQuestions:
    """Asks one server for its version of the module."""

    commands: Commands
    modules: list[str] = field(default_factory=list)

    def use(self, modules: list[str]) -> None:
        self.modules = modules

    def next(self) -> Step | None:
        words = self.commands.version
        return Step(kind=Kind.ASK, module=self.commands.module, words=words) if self.modules else None

    def read(self, step: Step, reply: Any) -> Answer:
        return Answer(configuration=self.commands.version_in(reply))
