"""The rollouts that run while clients are recorded, as the changes of a proof.

The command looks twice a second. An attempt at a node begins at the last look that did not show it, and ends at the first one that
shows its end. So a change is never shorter than the attempt was. A wait for a person belongs to no change.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from httpx import codes

from modfleet.client import NODES, ROLLOUTS, Client, Document, RefusedError, UnreachableError, path_to
from modfleet.proof.history import Change, Way
from modfleet.watch import FINAL

#: The phases in which a node has what the attempt was to bring.
DONE = frozenset({"succeeded", "rolled_back"})
#: The newest rollouts that each look asks for. More do not begin between two looks.
RECENT = 100


@dataclass(slots=True)
class Span:
    """An attempt at a node. Times in seconds of the monotonic clock."""

    started_at: float
    #: None while it is in progress, or may be.
    ended_at: float | None = None


@dataclass(slots=True)
class Seen:
    """A rollout."""

    rollout: Document
    #: False for a rollout on other servers.
    is_followed: bool
    #: False for a rollout that had begun before, too: the proof does not wait for its end.
    is_ours: bool
    #: The last look at its nodes, or before the first one.
    looked_at: float
    #: The attempts at each node, in their order.
    spans: dict[str, list[Span]] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        return is_over(self.rollout)

    def note(self, nodes: Iterable[Document], *, asked_at: float) -> None:
        """Note which attempts have begun and ended since the last look."""
        now = time.monotonic()
        for node in nodes:
            attempts, spans = attempts_at(node), self.spans.setdefault(node["node"], [])
            spans += [Span(self.looked_at) for _ in attempts[len(spans) :]]
            for attempt, span in zip(attempts, spans, strict=False):
                if attempt is not node and span.ended_at is None:
                    span.ended_at = now
        self.looked_at = asked_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What is known of the servers that the clients reach, by address."""

    #: The address of each server's process.
    by_run_id: Mapping[str, str]
    #: The module's version at the start, and at the end.
    before: Mapping[str, str]
    after: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One attempt at a node, or several if the first had no answer: then the next one may see what it did."""

    rollout: Document
    node: Document
    address: str
    attempts: Sequence[Document]
    started_at: float
    ended_at: float


class Rollouts:
    """The rollouts of the control plane from now on. `uid`: one that is looked at however old it is. `run_ids`: of the servers that the
    clients reach.
    """

    def __init__(self, api: Client, uid: str | None = None, *, run_ids: Collection[str] = ()) -> None:
        self._api, self._clients_reach = api, set(run_ids)
        self._wanted = [] if uid is None else [uid]
        self._looked_at = time.monotonic()
        listed = list(api.every(ROLLOUTS, most=RECENT))
        #: Rollouts that had ended before.
        self._over = {each["uid"] for each in listed if is_over(each)} - set(self._wanted)
        #: Rollouts that had begun before. They may be paused for days.
        self._older = {each["uid"] for each in listed} - self._over - set(self._wanted)
        #: How many attempts of the others had ended before, by rollout and node. `_nodes` reads it.
        self._ended: dict[tuple[str, str], int] = {}
        self._ended = {
            (uid, node["node"]): len(node["outcomes"])
            for uid in ({each["uid"] for each in listed} | set(self._wanted)) - self._over
            for node in self._nodes(uid)
        }
        self.seen: dict[str, Seen] = {}
        #: The processes that each node's server has been, as its agent said.
        self._run_ids: dict[str, set[str]] = {}
        #: Why the last look failed; empty if it did not.
        self.problem = ""

    def look(self) -> None:
        """Ask what has begun and ended. A lost connection makes the windows wider."""
        began = time.monotonic()
        try:
            listed = list(self._api.every(ROLLOUTS, most=RECENT))
            uids = {each["uid"] for each in listed}
            listed += [self._api.get(path_to(ROLLOUTS, uid)) for uid in {*self._wanted, *self.running} - uids]
            for each in reversed(listed):
                self._see(each)
        except UnreachableError as error:
            self.problem = str(error)
            return
        except RefusedError as error:
            if not may_pass(error):
                raise
            self.problem = str(error)
            return
        self.problem, self._looked_at = "", began

    @property
    def running(self) -> list[str]:
        """The rollouts that the proof must wait for."""
        return [uid for uid, each in self.seen.items() if each.is_ours and not each.has_ended]

    def _see(self, rollout: Document) -> None:
        uid = rollout["uid"]
        if uid in self._over:
            return
        seen, asked_at = self.seen.get(uid), time.monotonic()
        if seen is not None and (not seen.is_followed or (seen.has_ended and seen.rollout == rollout)):
            seen.rollout = rollout  # its nodes do not change any more, or are not those of the clients
            return
        nodes = self._nodes(uid)
        if seen is None:
            self._note_processes(nodes)
            is_wanted = uid in self._wanted
            is_followed = is_wanted or self._reach(nodes)
            is_ours = is_wanted or (is_followed and uid not in self._older)
            seen = self.seen[uid] = Seen(rollout, is_followed, is_ours, self._looked_at)
        seen.note(nodes, asked_at=asked_at)
        seen.rollout = rollout

    def _nodes(self, uid: str) -> list[Document]:
        """Return the nodes, without the attempts that had ended before the proof."""
        nodes = self._api.every(path_to(ROLLOUTS, uid, "nodes"))
        return [{**each, "outcomes": each["outcomes"][self._ended.get((uid, each["node"]), 0) :]} for each in nodes]

    def _reach(self, nodes: list[Document]) -> bool:
        """Return True if the clients reach a server of these nodes."""
        return any(self._run_ids.get(each["node"], set()) & self._clients_reach for each in nodes)

    def _note_processes(self, nodes: list[Document]) -> None:
        for each in nodes:
            found = self._api.get(path_to(NODES, each["node"]))
            if run_id := (found.get("server_state") or {}).get("run_id"):
                self._run_ids.setdefault(each["node"], set()).add(run_id)

    # --- As changes ---------------------------------------------------------------------------------------------------

    def changes(self, servers: Servers, *, module: str) -> tuple[list[Change], list[str]]:
        """Return the changes in their order, and notes about what they do not cover. What has not ended lasts until now."""
        notes: dict[str, None] = {}
        steps: list[Step] = []
        for uid, seen in self.seen.items():
            nodes = self._nodes(uid)
            self._note_processes(nodes)
            seen.note(nodes, asked_at=time.monotonic())
            for node in nodes:
                if seen.rollout["activation"] == "files" or not attempts_at(node):
                    continue
                if address := self._address(node["node"], servers):
                    steps += steps_of(seen, node, address, now=time.monotonic())
                else:
                    words = f"The node {node['node']} was changed, and its server is none that the clients reach."
                    notes[words] = None
            if not seen.has_ended:
                notes[f"The rollout {uid} had not ended when the recording ended."] = None
        versions = dict(servers.before)
        found: list[Change] = []
        for step in sorted(steps, key=lambda each: each.started_at):
            ours = step.rollout["module_name"] == module
            before = versions.get(step.address, "") if ours else ""
            change = change_of(step, before=before, now=servers.after.get(step.address, ""))
            if ours and change.module and not change.is_undone:
                versions[step.address] = change.after
            found.append(change)
        return found, list(notes)

    def _address(self, node: str, servers: Servers) -> str:
        return next((servers.by_run_id[each] for each in self._run_ids.get(node, ()) if each in servers.by_run_id), "")


def may_pass(error: RefusedError) -> bool:
    """Return True if the same request may be answered later."""
    return error.status == codes.TOO_MANY_REQUESTS or error.status >= codes.INTERNAL_SERVER_ERROR


def is_over(rollout: Document) -> bool:
    return rollout["phase"] in FINAL and not rollout["progress"]["queued"] + rollout["progress"]["running"]


def attempts_at(node: Document) -> list[Document]:
    """Return how each attempt that was released has ended, and the node itself for the one in progress."""
    ended = [each for each in node["outcomes"] if each["released_at"]]
    return [*ended, node] if node["released_at"] and not node["finished_at"] else ended


def steps_of(seen: Seen, node: Document, address: str, *, now: float) -> Iterator[Step]:
    """Yield the steps of one node."""
    attempts: list[Document] = []
    started_at = 0.0
    for attempt, span in zip(attempts_at(node), seen.spans[node["node"]], strict=False):
        started_at = started_at if attempts else span.started_at
        attempts.append(attempt)
        if _is_known(attempt, is_first=len(attempts) == 1):
            ended_at = now if span.ended_at is None else span.ended_at
            yield Step(
                rollout=seen.rollout,
                node=node,
                address=address,
                attempts=attempts,
                started_at=started_at,
                ended_at=ended_at,
            )
            attempts = []
    if attempts:  # the node may still carry it out
        yield Step(
            rollout=seen.rollout, node=node, address=address, attempts=attempts, started_at=started_at, ended_at=now
        )


def _is_known(attempt: Document, *, is_first: bool) -> bool:
    """Return True if it is known what the node has after the attempt. `is_first`: what it had before was known.

    Only the node's own answer has `seconds`; other ends are those of the control plane.
    """
    return attempt["seconds"] is not None and (is_first or attempt["phase"] in DONE)


def change_of(step: Step, *, before: str, now: str) -> Change:
    """Return what the step has done to its server. `now`: the version that the server has at the end."""
    rollout, node, first, last = step.rollout, step.node, step.attempts[0], step.attempts[-1]
    is_restart = node["way"] == Way.RESTART or any(each["restart"] for each in step.attempts)
    after = str(first["version"]) if first["action"] == "install" else ""
    is_rollback = first["rollback"] or rollout["rollback_of"]
    action = "rollback" if is_rollback else "upgrade" if before and after else str(first["action"])
    is_undone = False
    if first["rollback"] and node["rollback"] and node["activation"] == "files":
        after = ""  # it had the files only
    if last["phase"] in DONE:
        if last["rollback"] and not first["rollback"]:
            action, is_undone = f"undone {action}", True
    elif last is not node and _is_known(last, is_first=last is first):
        action, is_undone = f"{last['phase']} {action}", True  # failed, skipped or canceled
    elif last is not node:
        action, is_undone = f"unanswered {action}", now == before  # only the server's version shows what happened
    fails_back = bool(node["fails_back_to"])
    return Change(
        uid=rollout["uid"],
        action="failback" if fails_back else action,
        started_at=step.started_at,
        ended_at=step.ended_at,
        module="" if fails_back else rollout["module_name"],
        servers=(step.address,),
        way=Way.RESTART if is_restart or fails_back else Way.LOAD,
        before="" if fails_back else before,
        after="" if fails_back else after,
        is_undone=is_undone and not fails_back,
    )
