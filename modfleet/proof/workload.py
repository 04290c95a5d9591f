"""What the clients of a proof do: which command comes next, and what its answer says."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from modfleet.proof.history import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command to send. `words` are its words for the server."""

    kind: Kind
    module: str
    key: str = ""
    entry: int = 0
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an answer says. See `Call` for the fields."""

    server: str = ""
    configuration: str = ""
    entries: tuple[int, ...] = ()


class Workload(Protocol):
    """The commands of one client."""

    def next(self) -> Step | None:
        """Return the next command, or None if there is nothing to do now."""

    def read(self, step: Step, reply: Any) -> Answer:
        """Return what the server's reply says. Raises: `ValueError` if it is not what this workload understands."""

    def use(self, modules: list[str]) -> None:
        """Send commands of these modules only, from now on."""


@dataclass(slots=True)
class Lists:
    """The commands of the project's own modules (tests/modules/entries.c): `<module>.add key entry`, `<module>.get key`,
    `<module>.ask`. Each answers [server, configuration, entries]. Two of three calls write.
    """

    client: str
    random: Random
    #: After so many entries a client begins the next key.
    longest: int = 20
    modules: list[str] = field(default_factory=list)
    #: The number of each module's newest key, and its newest entry.
    _newest: dict[str, tuple[int, int]] = field(default_factory=dict)

    def use(self, modules: list[str]) -> None:
        self.modules = modules

    def next(self) -> Step | None:
        if not self.modules:
            return None
        module = self.random.choice(self.modules)
        number, entry = self._newest.get(module, (0, 0))
        if entry == 0 or self.random.random() < 2 / 3:
            number, entry = (number, entry + 1) if entry < self.longest else (number + 1, 1)
            self._newest[module] = number, entry
            key = self._key(module, number)
            return Step(kind=Kind.ADD, module=module, key=key, entry=entry, words=(f"{module}.add", key, str(entry)))
        key = self._key(module, self.random.randint(max(0, number - 5), number))
        return Step(kind=Kind.GET, module=module, key=key, words=(f"{module}.get", key))

    def _key(self, module: str, number: int) -> str:
        return f"{module}:{self.client}:{number}"

    def read(self, step: Step, reply: Any) -> Answer:
        server, configuration, entries = reply
        return Answer(server=server, configuration=configuration, entries=_numbers(entries))


@dataclass(slots=True)
class Questions:
    """Asks for the version of each module in turn. For a client of one server, master or replica."""

    modules: list[str] = field(default_factory=list)
    _turn: Iterator[str] = field(default_factory=lambda: iter(()))

    def use(self, modules: list[str]) -> None:
        self.modules, self._turn = modules, iter(())

    def next(self) -> Step | None:
        module = next(self._turn, "")
        if not module and self.modules:
            self._turn = iter(self.modules)
            module = next(self._turn)
        return Step(kind=Kind.ASK, module=module, words=(f"{module}.ask",)) if module else None

    def read(self, step: Step, reply: Any) -> Answer:
        server, configuration = reply
        return Answer(server=server, configuration=configuration)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()
