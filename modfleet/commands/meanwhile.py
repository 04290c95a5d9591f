"""The rollouts that run while clients are recorded, as the changes of a proof.

Times are those at which this command saw a rollout begin and end. A window begins at the last look that did not show the
rollout, and ends when an answer shows that no node of it is in progress. So it is never shorter than the rollout was.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from httpx import codes

from modfleet.client import NODES, ROLLOUTS, Client, Document, RefusedError, UnreachableError, path_to
from modfleet.proof.history import Change, Way
from modfleet.watch import FINAL

#: The newest rollouts that each look asks for. More do not begin between two looks.
RECENT = 100


@dataclass(slots=True)
class Seen:
    """A rollout. Times in seconds of the monotonic clock."""

    rollout: Document
    started_at: float
    #: False for a rollout on other servers, and for one that had begun before: the proof does not wait for its end.
    is_ours: bool
    #: None while a node is in progress, or may be.
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What is known of the servers that the clients reach, by address."""

    #: The address of each server's process.
    by_run_id: Mapping[str, str]
    #: The module's version at the start, and at the end.
    before: Mapping[str, str]
    after: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Kind:
    """What nodes of one rollout have in common, to be one change."""

    action: str
    before: str
    after: str
    way: Way
    is_undone: bool


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
        #: How many attempts of the others had ended before, by rollout and node.
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
        return [uid for uid, each in self.seen.items() if each.ended_at is None and each.is_ours]

    def _see(self, rollout: Document) -> None:
        uid = rollout["uid"]
        if uid in self._over:
            return
        if uid not in self.seen:
            nodes = self._nodes(uid)
            self._note_processes(nodes)
            is_ours = uid in self._wanted or (uid not in self._older and self._reach(nodes))
            self.seen[uid] = Seen(rollout, self._looked_at, is_ours=is_ours)
        seen = self.seen[uid]
        seen.rollout = rollout
        if seen.ended_at is None and is_over(rollout):
            seen.ended_at = time.monotonic()

    def _nodes(self, uid: str) -> list[Document]:
        return list(self._api.every(path_to(ROLLOUTS, uid, "nodes")))

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
        """Return the changes in their order, and notes about what they do not cover. A rollout that has not ended lasts until now."""
        now, notes = time.monotonic(), []
        versions = dict(servers.before)
        found: list[Change] = []
        for uid, seen in sorted(self.seen.items(), key=lambda item: item[1].started_at):
            nodes = self._nodes(uid)
            self._note_processes(nodes)
            addresses = {each["node"]: self._address(each["node"], servers) for each in nodes}
            ours = seen.rollout["module_name"] == module
            groups: dict[Kind, list[str]] = {}
            for node in (self._without_ended(uid, each) for each in nodes):
                if not _was_released(node) or node["activation"] == "files":
                    continue
                address = addresses[node["node"]]
                if not address:
                    notes.append(f"The node {node['node']} was changed, and its server is none that the clients reach.")
                    continue
                before = versions.get(address, "") if ours else ""
                kind = change_of_node(node, seen.rollout, before=before, now=servers.after.get(address, ""))
                groups.setdefault(kind, []).append(address)
                if ours and not kind.is_undone:
                    versions[address] = kind.after
            if seen.ended_at is None:
                notes.append(f"The rollout {uid} had not ended when the recording ended.")
            found += _changes_of(seen, groups, now)
        return found, notes

    def _without_ended(self, uid: str, node: Document) -> Document:
        """Return the node without the attempts that had ended before the proof."""
        return {**node, "outcomes": node["outcomes"][self._ended.get((uid, node["node"]), 0) :]}

    def _address(self, node: str, servers: Servers) -> str:
        return next((servers.by_run_id[each] for each in self._run_ids.get(node, ()) if each in servers.by_run_id), "")


def may_pass(error: RefusedError) -> bool:
    """Return True if the same request may be answered later."""
    return error.status == codes.TOO_MANY_REQUESTS or error.status >= codes.INTERNAL_SERVER_ERROR


def is_over(rollout: Document) -> bool:
    return rollout["phase"] in FINAL and not rollout["progress"]["queued"] + rollout["progress"]["running"]


def _was_released(node: Document) -> bool:
    is_in_progress = bool(node["released_at"]) and not node["finished_at"]
    return is_in_progress or any(each["released_at"] for each in node["outcomes"])


def change_of_node(node: Document, rollout: Document, *, before: str, now: str) -> Kind:
    """Return what the rollout has done to the node. `now`: the version that its server has at the end."""
    attempts = [each for each in node["outcomes"] if each["released_at"]]
    way = Way.RESTART if node["way"] == Way.RESTART or any(each["restart"] for each in attempts) else Way.LOAD
    if node["fails_back_to"]:
        return Kind("failback", "", "", Way.RESTART, is_undone=False)
    if attempts and attempts[0]["rollback"]:  # it undoes what had ended before the proof
        return Kind("rollback", before, now, way, is_undone=False)
    first = attempts[0] if attempts else node
    after = str(first["version"]) if first["action"] == "install" else ""
    action = "rollback" if rollout["rollback_of"] else "upgrade" if before and after else str(first["action"])
    last = attempts[-1] if node["finished_at"] else None
    if last is None or (last["phase"] == "succeeded" and not last["rollback"]):
        return Kind(action, before, after, way, is_undone=False)
    if last["phase"] == "timed_out":  # the node may have it, or not: only its server shows that
        return Kind(f"unanswered {action}", before, after, way, is_undone=now == before)
    return Kind(f"{'undone' if last['rollback'] else 'failed'} {action}", before, after, way, is_undone=True)


def _changes_of(seen: Seen, groups: Mapping[Kind, list[str]], now: float) -> Iterator[Change]:
    for kind, addresses in groups.items():
        yield Change(
            uid=seen.rollout["uid"],
            action=kind.action,
            started_at=seen.started_at,
            ended_at=now if seen.ended_at is None else seen.ended_at,
            module="" if kind.action == "failback" else seen.rollout["module_name"],
            servers=tuple(addresses),
            way=kind.way,
            before=kind.before,
            after=kind.after,
            is_undone=kind.is_undone,
        )
