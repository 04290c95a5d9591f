"""Answers about rollouts."""

from collections.abc import Collection

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Window
from django.db.models.functions import RowNumber

from eventstore import RecordedEvent, load_positions
from rollout.domain.errors import RolloutNotFoundError
from rollout.domain.placement.outcomes import NOTHING_TO_DO
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES, RolloutPhase, WavePhase
from rollout.messages import Action, Phase, Reason
from rollout.models import Operation, Rollout, TimelineEntry
from rollout.projections.attempts import BAD
from rollout.queries.nodes import node_rows

#: Reasons of an operation that did nothing but left nothing lacking: the node was as desired, or is decommissioned.
_WITHOUT_LOSS = (*sorted(NOTHING_TO_DO), Reason.NODE_DECOMMISSIONED)


def failed_nodes(uid: str) -> list[str]:
    """Return the nodes that failed, in the rollout's order, without decommissioned ones."""
    failed = Operation.objects.filter(rollout=uid, phase__in=BAD, node__in=node_rows().values("name"))
    return list(failed.order_by("ordinal").values_list("node", flat=True))


def unfinished_rollouts_of(*nodes: str) -> list[str]:
    """Return the rollouts with an unfinished operation on one of the nodes."""
    unfinished = Operation.objects.filter(node__in=nodes, finished_at__isnull=True)
    return list(unfinished.order_by("rollout").values_list("rollout", flat=True).distinct())


def unfinished_rollouts() -> list[str]:
    return list(_unfinished().values_list("uid", flat=True))


def unfinished_rollouts_among(
    uids: Collection[str], *, nodes: Collection[str], places: Collection[tuple[str, str]]
) -> list[str]:
    """Return the unfinished rollouts that are among `uids`, or have an operation, ended or not, on one of the nodes or on
    one of the places: a node and a module."""
    own = Operation.objects.filter(rollout=OuterRef("uid"))
    of_places = Q(module_name__in={name for _, name in places}) & Exists(
        own.filter(node__in={node for node, _ in places})
    )
    found = _unfinished().filter(Q(uid__in=uids) | Exists(own.filter(node__in=nodes)) | of_places)
    return list(found.values_list("uid", flat=True))


def unfinished_rollouts_that_need(uids: Collection[str]) -> list[str]:
    """Return the unfinished rollouts that need one of these to succeed first."""
    waiting = _unfinished().exclude(needs=[]).values_list("uid", "needs")
    return [uid for uid, needs in waiting if not set(uids).isdisjoint(needs)]


def _unfinished() -> QuerySet[Rollout]:
    """Return unfinished rollouts, the oldest first. By phase, so that finished rollouts are not read."""
    return Rollout.objects.filter(phase__in=sorted(set(RolloutPhase) - FINAL_ROLLOUT_PHASES)).order_by("created_at")


def rollout_rows() -> QuerySet[Rollout]:
    """Return all rollouts, the newest first."""
    return Rollout.objects.order_by("-started_position")


def unfinished_rollout_rows() -> list[Rollout]:
    """Return the unfinished rollouts, the newest first."""
    rows = rollout_rows().exclude(phase__in=FINAL_ROLLOUT_PHASES)
    return list(rows.defer("document", "state", "durations", "slowest"))


def newest_rollouts_of(module_name: str, *, limit: int) -> list[Rollout]:
    rows = rollout_rows().filter(module_name=module_name)
    return list(rows.defer("document", "state", "durations", "slowest")[:limit])


def decision_needed(row: Rollout) -> str:
    """Return in words what a person must decide before the rollout continues; empty if it continues by itself."""
    match row.phase:
        case RolloutPhase.PENDING_APPROVAL:
            return "waits for approval"
        case RolloutPhase.PAUSED:
            return row.message or "is paused"
        case RolloutPhase.RUNNING if row.one_way and not row.one_way["promoted"]:
            return "waits until a person promotes it: there is no rollback"
        case _ if any(each["phase"] == WavePhase.GATED for each in row.waves):
            return "waits at a gate until a person promotes it"
        case _:
            return ""


def rollout_row(uid: str) -> Rollout:
    """Return the rollout. Raises: `RolloutNotFoundError`."""
    row = Rollout.objects.filter(uid=uid).first()
    if row is None:
        raise RolloutNotFoundError
    return row


def rollout_document(uid: str) -> tuple[str, int, str]:
    """Return the rollout as JSON text, the position of its newest event, and its phase. Raises: `RolloutNotFoundError`."""
    found = Rollout.objects.filter(uid=uid).values_list("document", "position", "phase").first()
    if found is None:
        raise RolloutNotFoundError
    return found


def newest_positions(uids: Collection[str]) -> dict[str, int]:
    """Return the position of the newest event of each of these rollouts. One query."""
    return dict(Rollout.objects.filter(uid__in=uids).values_list("uid", "position"))


def rollout_events(uid: str, *, after: int, limit: int) -> list[RecordedEvent]:
    """Return the first events of the rollout's timeline after a position of the log."""
    entries = TimelineEntry.objects.filter(rollout=uid, position__gt=after).order_by("position")
    return load_positions(list(entries.values_list("position", flat=True)[:limit]))


def newest_rollout_events(uid: str, *, limit: int) -> list[RecordedEvent]:
    """Return the newest events of the rollout's timeline, in their order."""
    entries = TimelineEntry.objects.filter(rollout=uid).order_by("-position")
    return load_positions(sorted(entries.values_list("position", flat=True)[:limit]))


def shortfalls(rollouts: Collection[Rollout], *, most: int = 5) -> dict[str, str]:
    """Return in words, by rollout, which nodes the rollout did not bring to their desired state, each with its reason: the
    first `most` and the number of the others. If the rollout did not succeed, attempts that failed and were retried or
    undone count too. One query."""
    bad = [each.uid for each in rollouts if each.phase != RolloutPhase.SUCCEEDED]
    short = Operation.attempts.filter(
        Q(former=False) | Q(phase__in=BAD, rollout__in=bad),
        Q(phase__in=[*BAD, Phase.CANCELED, Phase.SKIPPED]) & ~Q(reason__in=_WITHOUT_LOSS),
        rollout__in=[each.uid for each in rollouts],
    )
    order = ("ordinal", "generation", "attempt")
    ranked = short.annotate(
        place=Window(RowNumber(), partition_by="rollout", order_by=order),
        count=Window(Count("key"), partition_by="rollout"),
    )
    by_rollout: dict[str, list[str]] = {}
    for each in ranked.filter(place__lte=most).order_by("rollout", *order):
        words = by_rollout.setdefault(each.rollout, [])
        reason = each.phase if each.reason in {"", Reason.MANUAL} else each.reason
        words.append(f"{each.node}: {each.message or reason.replace('_', ' ')}")
        if len(words) == most < each.count:
            words.append(f"and {each.count - most} more")
    return {uid: "; ".join(words) for uid, words in by_rollout.items()}


def measured_seconds(action: Action, module_name: str, *, limit: int) -> list[float]:
    """Return the durations of the newest operations that succeeded: of this module, else of any; at most `limit`."""
    succeeded = Rollout.objects.filter(action=action, succeeded__gt=0, failback_of="").order_by("-started_position")
    for rollouts_of in (succeeded.filter(module_name=module_name), succeeded):
        uids, count = [], 0
        for uid, operations_of in rollouts_of.values_list("uid", "succeeded")[:limit]:
            if count < limit:
                uids.append(uid)
                count += operations_of
        rows = Operation.objects.filter(rollout__in=uids, phase=Phase.SUCCEEDED, seconds__isnull=False)
        newest = rows.order_by("-finished_at").values_list("seconds", flat=True)[:limit]
        if seconds := [each for each in newest if each is not None]:
            return seconds
    return []
