"""What a rule reports, and what it sees."""

from typing import Protocol, Self

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

    @classmethod
    def of(cls, rule: str, message: str, call: Call) -> Self:
        """Return what is wrong with this call, when it was answered."""
        return cls(
            rule=rule,
            message=message,
            client=call.client,
            key=call.key,
            server=call.server,
            module=call.module,
            at=call.answered_at,
        )


class Watcher(Protocol):
    """A rule that sees each call once: one client after the other, the calls of each in their order."""

    def see(self, call: Call) -> None: ...
