"""`lost` and `invented`: each master and replica has at the end what the clients wrote, and nothing else."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from modfleet.proof.history import Call, Kind
from modfleet.proof.rules.dumps import Dumps, master_of
from modfleet.proof.rules.reads import starts_with
from modfleet.proof.rules.timeline import Timeline
from modfleet.proof.rules.violation import Violation


class Wrong(NamedTuple):
    """What is wrong with the entries at one key, and when the entry was written, if known."""

    rule: str
    reason: str
    at: float | None = None


class Written:
    """What one client wrote to one key."""

    __slots__ = ("acknowledged", "client", "is_value", "last_answer", "module", "unanswered", "unsaved")

    def __init__(self, call: Call) -> None:
        self.client, self.module = call.client, call.module
        self.is_value = call.kind is Kind.SET
        #: The acknowledged entries in order, and when each answer was there.
        self.acknowledged: dict[int, float] = {}
        #: How many attempts of each entry may have happened without an answer.
        self.unanswered: Counter[int] | None = None
        #: Acknowledged entries that a killed server may have lost.
        self.unsaved: set[int] | None = None
        self.last_answer: tuple[int, ...] = ()

    def add(self, call: Call, *, is_unsaved: bool) -> None:
        if call.is_acknowledged:
            self.acknowledged[call.entry] = call.answered_at
            self.last_answer = call.entries or self.last_answer
            if is_unsaved:
                self.unsaved = self.unsaved or set()
                self.unsaved.add(call.entry)
        elif call.may_have_happened:
            self.unanswered = self.unanswered or Counter()
            self.unanswered[call.entry] += 1

    def judge(self, entries: tuple[int, ...]) -> Wrong | None:
        """Return what is wrong with these entries at the end. Entries that a killed server may have lost may be missing."""
        return self._judge_value(entries) if self.is_value else self._judge_list(entries)

    def lost_by_faults(self, entries: tuple[int, ...]) -> set[int]:
        """Return the acknowledged entries that are not there, and that a killed server may have lost."""
        if not self.unsaved:
            return set()
        if self.is_value:
            return {entry for entry in self.unsaved if entry > (entries[0] if entries else 0)}
        return self.unsaved.difference(entries)

    def _judge_list(self, entries: tuple[int, ...]) -> Wrong | None:
        unsaved, unanswered = self.unsaved or set(), self.unanswered or Counter()
        there = set(entries)
        for entry, at in self.acknowledged.items():
            if entry not in there and entry not in unsaved:
                return Wrong("lost", f"lacks the acknowledged entry {entry}: {list(entries)}", at)
        for entry, times in Counter(entries).items():
            if times > (allowed := (entry in self.acknowledged) + unanswered[entry]):
                reason = (
                    f"has the entry {entry} {_times(times)}, and {_times(allowed)} can be explained: {list(entries)}"
                )
                return Wrong("invented", reason)
        if misplaced := self._misplaced(entries):
            return Wrong("invented", f"has the entry {misplaced} where no call can have written it: {list(entries)}")
        if not starts_with(entries, self.last_answer, unsaved):
            return Wrong(
                "lost", f"does not begin with what was last answered, {list(self.last_answer)}: {list(entries)}"
            )
        return None

    def _misplaced(self, entries: tuple[int, ...]) -> int:
        """Return the first entry that comes before an older acknowledged one, 0 if there is none.

        An attempt without an answer may be executed at any time after its call, so its entry may come later than in order.
        """
        expected = iter(sorted(self.acknowledged.keys() & set(entries)))
        following = next(expected, None)
        for entry in entries:
            if entry == following:
                following = next(expected, None)
            elif following is not None and entry > following:
                return entry
        return 0

    def _judge_value(self, entries: tuple[int, ...]) -> Wrong | None:
        value = entries[0] if entries else 0
        unsaved, unanswered = self.unsaved or set(), self.unanswered or Counter()
        if len(entries) > 1 or (value and value not in self.acknowledged and not unanswered[value]):
            return Wrong("invented", f"has the value {list(entries)}, which no call wrote")
        for entry, at in self.acknowledged.items():
            if entry > value and entry not in unsaved:
                return Wrong(
                    "lost", f"has {value or 'nothing'}, and not the acknowledged value {entry} or a later one", at
                )
        return None


class Data:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._keys: dict[str, Written] = {}
        #: The acknowledged writes that a killed server has lost, as key and entry.
        self.lost_by_faults: set[tuple[str, int]] = set()

    def see(self, call: Call) -> None:
        if call.entry:
            written = self._keys.get(call.key)
            if written is None:
                written = self._keys[call.key] = Written(call)
            written.add(call, is_unsaved=self._timeline.may_be_unsaved(call.server, call.answered_at))
        elif (
            call.kind is Kind.GET and call.entries and (read := self._keys.get(call.key)) and read.client == call.client
        ):
            read.last_answer = call.entries

    def violations(self, dumps: Dumps) -> Iterator[Violation]:
        """Yield what is wrong with the servers' final data, at most once for each key and server."""
        masters = {name: master for name in dumps if (master := master_of(name, dumps))}
        holders = _holders(dumps, set(masters.values()))
        copies: dict[str, list[str]] = defaultdict(list)
        for name, master in masters.items():
            copies[master].append(name)
        for key, written in self._keys.items():
            yield from self._of_key(key, written, holders.get(key, []), copies, dumps)
        yield from self._not_written(dumps, masters)

    def _of_key(
        self, key: str, written: Written, holders: list[str], copies: dict[str, list[str]], dumps: Dumps
    ) -> Iterator[Violation]:
        if not holders:
            self._count_lost(key, written, ())
            if wrong := written.judge(()):
                yield self._violation(key, "", wrong._replace(reason="is on no master"))
        elif len(holders) > 1:
            yield self._violation(key, "", Wrong("invented", f"is on several masters: {', '.join(holders)}"))
        for holder in holders:
            yield from self._of_shard(key, written, holder, copies[holder], dumps)

    def _of_shard(
        self, key: str, written: Written, master: str, copies: list[str], dumps: Dumps
    ) -> Iterator[Violation]:
        expected = dumps[master].keys[key]
        is_master_right = True
        for name in sorted(copies, key=lambda name: name != master):  # the master first
            entries = dumps[name].keys.get(key, ())
            self._count_lost(key, written, entries)
            if wrong := written.judge(entries):
                is_master_right = is_master_right and name != master
                yield self._violation(key, name, wrong)
            elif entries != expected and is_master_right:
                rule = "lost" if Counter(expected) - Counter(entries) else "invented"
                reason = f"has {list(entries)}, and its master {master} has {list(expected)}"
                yield self._violation(key, name, Wrong(rule, reason))

    def _not_written(self, dumps: Dumps, masters: dict[str, str]) -> Iterator[Violation]:
        for name, server in dumps.items():
            at_master = dumps[masters.get(name, name)].keys
            for key in server.keys:
                if key not in self._keys:
                    message = f"{name} has the key {key}, which no client wrote."
                    yield Violation(rule="invented", message=message, key=key, server=name)
                elif key not in at_master:
                    message = f"{name} has the key {key}, which its master {masters[name]} does not have."
                    yield Violation(rule="invented", message=message, key=key, server=name)

    def _count_lost(self, key: str, written: Written, entries: tuple[int, ...]) -> None:
        self.lost_by_faults.update((key, entry) for entry in written.lost_by_faults(entries))

    def _violation(self, key: str, server: str, wrong: Wrong) -> Violation:
        written = self._keys[key]
        where = f" (answered {self._timeline.words(wrong.at)})" if wrong.at is not None else ""
        message = f"{server + ': the' if server else 'The'} key {key} {wrong.reason}{where}."
        return Violation(
            rule=wrong.rule,
            message=message,
            client=written.client,
            key=key,
            server=server,
            module=written.module,
            at=wrong.at,
        )


def _holders(dumps: Dumps, masters: Iterable[str]) -> dict[str, list[str]]:
    """Return the masters that have each key."""
    holders: dict[str, list[str]] = defaultdict(list)
    for master in sorted(masters):
        for key in dumps[master].keys:
            holders[key].append(master)
    return holders


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
