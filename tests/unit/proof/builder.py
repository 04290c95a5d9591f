"""Writes the files of a proof, in a few words for each call."""

from pathlib import Path
from typing import Any

from modfleet.proof.checker import Limits, Verdict, check
from modfleet.proof.history import (
    CONTROL,
    FINAL,
    RESTARTED,
    Call,
    Change,
    Dump,
    Journal,
    Kind,
    changes_file,
    history_file,
    write_dump,
)

Keys = dict[str, tuple[int, ...]]


class Proof:
    """A proof that is clean until a test adds something: the client `control`, and a server `c` for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: dict[str, list[Call]] = {}
        self.changes: list[Change] = []
        self.dumps: dict[str, dict[str, tuple[Dump, Keys]]] = {FINAL: {}, RESTARTED: {}}
        self.call(0.0, Kind.ASK, took=0.1, client=CONTROL, server="c")
        self.server("c")

    def call(self, at: float, kind: Kind, entry: int = 0, *, took: float = 0.01, **fields: Any) -> None:
        """Record a call of the client `a` to the key `k` of the module `m` on the server `s`, unless `fields` say otherwise."""
        key = "" if kind is Kind.ASK else "k"
        fields = {"client": "a", "module": "m", "key": key, "attempt": 1, "server": "s", **fields}
        call = Call(called_at=at, answered_at=at + took, kind=kind, entry=entry, **fields)
        self.calls.setdefault(call.client, []).append(call)

    def add(self, at: float, entry: int, *entries: int, **fields: Any) -> None:
        """Record that an entry was added, and that the key has these entries then."""
        self.call(at, Kind.ADD, entry, entries=entries or tuple(range(1, entry + 1)), **fields)

    def failed_add(self, at: float, entry: int, error: str, **fields: Any) -> None:
        self.call(at, Kind.ADD, entry, error=error, **fields)

    def get(self, at: float, *entries: int, **fields: Any) -> None:
        self.call(at, Kind.GET, entries=entries, **fields)

    def ask(self, at: float, configuration: str, **fields: Any) -> None:
        self.call(at, Kind.ASK, configuration=configuration, **fields)

    def change(self, start: float, end: float, **fields: Any) -> None:
        """Record an upgrade of `m` from 1 to 2 on the server `s`, unless `fields` say otherwise."""
        upgrade = {"module": "m", "before": "1", "after": "2"} if "action" not in fields else {}
        fields = {"uid": "u", "action": "upgrade", "servers": ("s",), **upgrade, **fields}
        self.changes.append(Change(started_at=start, ended_at=end, **fields))

    def server(
        self, name: str, keys: Keys | None = None, *, master: str = "", modules: dict[str, str] | None = None
    ) -> None:
        """Record that the server has these keys at the end, and after its restart."""
        for dumps in self.dumps.values():
            dumps[name] = Dump(server=name, master=master, modules=modules or {}), keys or {}

    def check(self, limits: Limits | None = None) -> Verdict:
        for client, calls in self.calls.items():
            history_file(self.folder, client).unlink(missing_ok=True)
            with Journal(history_file(self.folder, client)) as journal:
                for call in calls:
                    journal.append(call)
        changes_file(self.folder).unlink(missing_ok=True)
        with Journal(changes_file(self.folder)) as journal:
            for change in self.changes:
                journal.append(change)
        for moment, dumps in self.dumps.items():
            for dump, keys in dumps.values():
                write_dump(self.folder, moment, dump, keys)
        return check(self.folder, limits or Limits())

    def rules(self, limits: Limits | None = None) -> list[str]:
        """Return the rule of each violation."""
        return [violation.rule for violation in self.check(limits).violations]
