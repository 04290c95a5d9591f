"""What a rule reports, and what it sees."""

from typing import Protocol

import msgspec

from modfleet.proof.history import Call


class Violation(msgspec.Struct):
    """One thing that must not be. Fields that do not apply are empty."""

    rule: str
    #: Says which entry, server and change, for a person.
    message: str
    client: str = ""
    key: str = ""
    server: str = ""
    module: str = ""
    #: Seconds of the clock of the history.
    at: float | None = None


class Watcher(Protocol):
    """A rule that sees each call once: one client after the other, the calls of each in their order."""

    def see(self, call: Call) -> None: ...
