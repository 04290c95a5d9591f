"""Which servers may be restarted for a module, by what their agents have reported. Pure.

What is not known is a refusal: a server that is restarted by mistake drops its clients, or its data.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rollout.domain.placement.commands import Skip
from rollout.domain.topology.addresses import shown
from rollout.domain.words import counted, some_of
from rollout.messages import Reason

#: How a replica becomes the master, as agents name it.
FAILOVERS = ("sentinel", "command", "cluster")
#: A restart without data takes so long, and a server saves and loads so many bytes per second.
BASE_SECONDS, BYTES_PER_SECOND = 1.0, 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What a person has allowed: that clients are interrupted, and that data is lost."""

    may_interrupt: bool = False
    may_discard_data: bool = False


def seconds_away(server: Mapping[str, Any]) -> float:
    """Return for how many seconds a restart is expected to stop the server: it saves its data, and loads them."""
    return BASE_SECONDS + 2 * (server.get("used_memory") or 0) / BYTES_PER_SECOND


def why_not_restart(
    node: str,
    server: Mapping[str, Any],
    master: Mapping[str, Any] | None,
    permission: Permission,
    strangers: Collection[str] = (),
    copies: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Skip | None:
    """Return why the node's server must not be restarted, and what to do; None if it may.

    `server`: the `messages.ServerState` of the node as JSON, in a plan with `failover_problem` of its doctor; `master`: that of a replica's master, None if it is not known.
    `strangers`: addresses of its replicas that are no nodes, so that they do not get the module. `copies`: the servers of those
    that are.
    """
    if not server.get("restart"):
        return (
            Reason.RESTART_REQUIRED,
            f"{node} needs a restart, and its agent does not say if it can restart its server.",
        )
    if problem := server.get("restart_problem"):
        return Reason.RESTART_REQUIRED, f"{node} needs a restart. {problem}"
    if server["restart"] == "external":
        return None  # a person chooses the moment
    match server.get("role"):
        case "replica":
            return _replica(node, master)
        case "master":
            return _master(node, server, permission, strangers, copies)
        case _:
            return (
                Reason.RESTART_REQUIRED,
                f"{node} needs a restart, and it is not known if it is a master or a replica.",
            )


def why_not_fail_back(
    node: str, former: str, server: Mapping[str, Any], of_former: Mapping[str, Any], *, is_listed: bool
) -> Skip | None:
    """Return why the node's server cannot give the role of the master back to `former`, and what to do; None if it may.

    `server` and `of_former`: the `messages.ServerState` of the two as JSON, empty if it is not known. `is_listed`: the server lists the
    other one as its replica. The reason is `role_changed` if there is nothing to do any more.
    """
    if server.get("role") == "replica" and of_former.get("role") == "master":
        return Reason.ROLE_CHANGED, f"{former} is the master again already."
    if server.get("role") != "master" or of_former.get("role") != "replica" or not is_listed:
        words = f"{node} does not report that it is the master, and {former} its replica"
        return Reason.FAILOVER_NOT_POSSIBLE, f"{words}. Check both servers."
    if server.get("failover") not in FAILOVERS:
        advice = f"Set MODFLEET_FAILOVER to {', '.join(FAILOVERS[:-1])} or {FAILOVERS[-1]} for its agent"
        return Reason.FAILOVER_NOT_POSSIBLE, f"{node} does not say how its shard fails over. {advice}."
    return None


def failover_before(server: Mapping[str, Any]) -> str:
    """Return how a replica of the server becomes the master before its restart; empty if that is not needed."""
    return str(server.get("failover", "")) if server.get("role") == "master" and _has_replicas(server) else ""


def full_sync_expected(server: Mapping[str, Any]) -> bool:
    """Return True if the server is a replica after its restart and gets all data of its master anew: with an append-only file, it
    forgets its place in the master's history. Seen on Redis 7.0 and Valkey 9.1."""
    return (server.get("role") == "replica" or bool(failover_before(server))) and server.get("aof_enabled") is not False


def _has_replicas(server: Mapping[str, Any]) -> bool:
    return bool(server.get("replicas") or server.get("replica_count"))


def _lasting(server: Mapping[str, Any]) -> str:
    return counted(max(1, round(seconds_away(server))), "second")


def _why_not_fail_over(
    node: str, server: Mapping[str, Any], strangers: Collection[str], copies: Mapping[str, Mapping[str, Any]]
) -> Skip | None:
    """A master with replicas is never restarted: one of them becomes the master first."""
    needs = f"{node} needs a restart of about {_lasting(server)}, and is a master with replicas"
    if server.get("failover") not in FAILOVERS:
        advice = f"Set MODFLEET_FAILOVER to {', '.join(FAILOVERS[:-1])} or {FAILOVERS[-1]} for its agent"
        return Reason.RESTART_REQUIRED, f"{needs}. {advice}, or make one of them the master and start another rollout."
    if strangers:
        words = f"{needs}, of which {some_of([*map(shown, sorted(strangers))])} would not get the module"
        return Reason.RESTART_REQUIRED, f"{words} and could become the master. Add an agent to each."
    twice = sorted(name for name, each in copies.items() if each.get("persistence") == "include")
    if twice and server["failover"] != "cluster":
        words = f"{needs}. The failover writes the configuration of {some_of(twice)}, whose module lines it would then have twice"
        return Reason.RESTART_REQUIRED, f"{words}. Set MODFLEET_PERSISTENCE=rewrite for each agent of the shard."
    # What its agents withhold ends before its turn comes.
    is_withheld = any(each.get("withheld") for each in copies.values())
    if (problem := server.get("failover_problem")) and not is_withheld:
        return Reason.RESTART_REQUIRED, f"{needs}, none of which can become the master. {problem}"
    good = sum(each.get("state") == "online" for each in server.get("replicas", ()))
    if not good:
        return (
            Reason.RESTART_REQUIRED,
            f"{needs}, none of which is online. Wait until one is, then start another rollout.",
        )
    if (needed := server.get("min_replicas_to_write")) is None:
        return Reason.MIN_REPLICAS, f"It is not known how many replicas {node} needs to accept writes."
    # The new master has one less, while this one restarts.
    return None if good > needed else _too_few(f"{node} has", good, needed)


def _too_few(who: str, good: int, needed: int) -> Skip:
    words = f"{who} {counted(good, 'good replica')} and accepts writes only with {needed} (min-replicas-to-write)"
    return Reason.MIN_REPLICAS, f"{words}. Add a replica, or lower that number while the rollout runs."


def _replica(node: str, master: Mapping[str, Any] | None) -> Skip | None:
    needed = master.get("min_replicas_to_write") if master else None
    if needed == 0:
        return None
    if master is None or needed is None:
        return Reason.MIN_REPLICAS, f"It is not known how many replicas the master of {node} needs to accept writes."
    good = sum(each.get("state") == "online" for each in master.get("replicas", ()))
    return None if good > needed else _too_few(f"The master of {node} has", good, needed)


def _master(
    node: str,
    server: Mapping[str, Any],
    permission: Permission,
    strangers: Collection[str],
    copies: Mapping[str, Mapping[str, Any]],
) -> Skip | None:
    if _has_replicas(server):
        return _why_not_fail_over(node, server, strangers, copies)
    if not permission.may_interrupt:
        whole = server.get("cluster_enabled") and server.get("full_coverage") is not False
        stops = "the whole cluster" if whole else "its clients"
        words = f"{node} needs a restart, which stops {stops} for about {_lasting(server)}: no other server takes over."
        return Reason.RESTART_REQUIRED, f'{words} Allow it with "may_interrupt": true.'
    if permission.may_discard_data or server.get("aof_enabled") or server.get("save_points"):
        return None
    words = (
        f"{node} has no append-only file, no save points that are known and no replica: a restart may lose its data."
    )
    return Reason.WOULD_LOSE_DATA, f'{words} Switch one of them on, or allow it with "may_discard_data": true.'
