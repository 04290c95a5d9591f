"""If a server may be changed now, by its state: for the control plane at a release, and for the agent before it acts.

A fact that is needed and not known is a reason to wait.
"""

from collections.abc import Mapping

from rollout.messages import MOST_REPLICAS, Reason, Replication, ServerState, SlotMigration

#: Why an operation waits, and a sentence or two for people.
Wait = tuple[Reason, str]


def why_not_ready(state: ServerState, *, others: Mapping[str, ServerState] | None = None) -> Wait | None:
    """Return why no module of the server may be changed now, None if it may be.

    `others`: the states of the nodes that it copies, by name. Slots that migrate to or from one of them count too: before
    Valkey 8, a replica does not know of its master's migrations.
    """
    words = _loads(state) or _synchronizes(state) or _cluster_problem(state)
    if words:
        return Reason.SERVER_NOT_READY, words
    if state.cluster_enabled:
        if state.migrations:
            return Reason.SERVER_NOT_READY, f"{_migrating(state.migrations[0])}."
        for name, other in (others or {}).items():
            if other.migrations:
                return Reason.SERVER_NOT_READY, f"{_migrating(other.migrations[0])}, as {name} says."
    backups = _backups(state)
    if backups is None:
        return Reason.SERVER_NOT_READY, _unknown("which tools copy the server's data", "info")
    if backups:
        tools = "1 tool copies" if backups == 1 else f"{backups} tools copy"
        return Reason.BACKUP_RUNNING, f"{tools} the server's data, such as `redis-cli --rdb`."
    return None


def what_changed(expected: Replication, now: Replication) -> str:
    """Return how the server's place in its shard differs from the one that was expected, empty if it does not."""
    if expected == now:
        return ""
    if now.role != expected.role:
        return f"The server is a {now.role} now; it was a {expected.role or 'server of unknown role'}."
    if now.master != expected.master:
        return f"The server's master is {now.master} now; it was {expected.master}."
    added = sorted(set(now.replicas) - set(expected.replicas))
    removed = sorted(set(expected.replicas) - set(now.replicas))
    words = [f"The server has the replica {each} now." for each in added]
    words += [f"The server has lost the replica {each}." for each in removed]
    return " ".join(words[:3])


def _backups(state: ServerState) -> int | None:
    """Return how many tools copy the server's data. An older agent counts them only together with the replicas."""
    if state.backups is not None or state.replica_count is None:
        return state.backups
    return state.replica_count - len(state.replicas) if len(state.replicas) < MOST_REPLICAS else None


def _loads(state: ServerState) -> str:
    if state.problem:
        return state.message or f"The server cannot be used: {state.problem}."
    if state.loading is None or state.async_loading is None:
        return _unknown("if the server loads data", "info")
    if state.loading or state.async_loading:
        return "The server is loading its data."
    return ""


def _synchronizes(state: ServerState) -> str:
    if not state.role:
        return _unknown("what role the server has", "info")
    if state.role != "replica":
        return ""
    if state.master_sync_in_progress is None:
        return _unknown("if the server synchronizes with its master", "info")
    if state.master_sync_in_progress:
        return f"The server synchronizes with its master {state.master}."
    if state.link_status != "up":
        return f"The server's link to its master {state.master} is {state.link_status or 'not known'}."
    return ""


def _cluster_problem(state: ServerState) -> str:
    if state.cluster_enabled is None:
        return _unknown("if the server is part of a cluster", "info")
    if not state.cluster_enabled:
        return ""
    if not state.cluster_state:
        return _unknown("if the cluster is ok", "cluster|info")
    if state.cluster_state != "ok":
        return f"The state of the cluster is {state.cluster_state}."
    if state.migrations is None and state.migrating_slots != 0:  # an older agent only counts them
        return _unknown("if slots of this shard migrate", "cluster|nodes", "cluster|getslotmigrations (only Valkey 9)")
    return ""


def _migrating(migration: SlotMigration) -> str:
    word = "Slots" if any(each in migration.slots for each in " -") else "Slot"
    verb = "migrate" if word == "Slots" else "migrates"
    return f"{word} {migration.slots} {verb} from {migration.source} to {migration.target}"


def _unknown(fact: str, *rights: str) -> str:
    allow = " and ".join(f"+{each}" for each in rights)
    return f"It is not known {fact}. Allow {allow} to the agent's user at the server, or upgrade the agent."
