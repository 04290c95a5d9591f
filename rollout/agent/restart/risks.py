"""What an end of the server's process would do to its data, its replicas, and its role. Pure."""

from collections.abc import Mapping

from rollout.agent.inspection.start_lines import StartLines
from rollout.agent.server import place
from rollout.messages import Reason


def why_not_end(
    info: Mapping[str, str], save_points: str | None, start: StartLines, *, may_discard_data: bool
) -> tuple[Reason, str] | None:
    """Return why the server must not be ended, with what to do; None if it may.

    `info`: the sections `server`, `replication` and `persistence` of INFO. `save_points`: the parameter `save`, None if it is not
    known. `start`: what the next start reads.
    """
    role = place.role(info)
    if role == "master":
        if any(place.replicas(info)):
            return (
                Reason.RESTART_REQUIRED,
                "The server is a master with replicas. Make one of them the master first, then retry.",
            )
        if not (info.get("aof_enabled") == "1" or save_points or may_discard_data):
            words = "The server has neither an append-only file nor save points nor a replica, so a restart may lose its data."
            return Reason.WOULD_LOSE_DATA, f"{words} Switch one of them on, or allow it with may_discard_data."
    elif role != "replica":
        return Reason.RESTART_REQUIRED, "It is not known if the server is a master or a replica."
    return None if info.get("cluster_enabled") == "1" else _other_role(info, start)


def _other_role(info: Mapping[str, str], start: StartLines) -> tuple[Reason, str] | None:
    """Return that the server would start in another role: REPLICAOF changes it in memory only."""
    if start.replicaof is None:
        words = start.problem or "its command line is not visible."
        return Reason.RESTART_REQUIRED, f"It is not known in which role the server would start: {words}"
    now = (info.get("master_host", ""), info.get("master_port", "")) if place.role(info) == "replica" else ()
    if start.replicaof == now:
        return None
    is_now = f"a replica of {now[0]}:{now[1]}" if now else "a master"
    would_be = f"a replica of {':'.join(start.replicaof)}" if start.replicaof else "a master"
    words = f"The server is {is_now}, but after a restart it would be {would_be}."
    return Reason.RESTART_REQUIRED, f"{words} Let it write its configuration with CONFIG REWRITE, then retry."
