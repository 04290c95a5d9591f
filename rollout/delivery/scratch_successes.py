"""Loads in scratch servers that have succeeded: recorded from reports, sent with commands to nodes that can run none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

import msgspec

from eventstore import database_now
from rollout.messages import Report, any_known
from rollout.models import Operation, ScratchSuccess
from rollout.projections.counters import operation_key

#: The most keys in a command, the newest ones.
MOST_KEYS = 64


def keep_successes(reports: Iterable[Report], operations: Mapping[str, Operation]) -> None:
    """Keep the successes in reports that were recorded, in the caller's transaction. `operations`: by key."""
    now = database_now()
    rows = {}
    for each in reports:
        operation = operations.get(operation_key(each.rollout, each.node))
        if each.scratch is None or each.scratch.problem or operation is None:
            continue
        if operation.module_name != each.module_name or not operation.content_sha256:
            continue
        rows[each.scratch.key] = ScratchSuccess(
            key=each.scratch.key,
            content_sha256=operation.content_sha256,
            node=each.node,
            learned=msgspec.to_builtins(each.scratch),
            recorded_at=now,
        )
    if rows:
        ScratchSuccess.objects.bulk_create(sorted(rows.values(), key=attrgetter("key")), ignore_conflicts=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What scratch servers have shown about one build. None: not known. `keys`: of its successes, the newest ones."""

    keys: tuple[str, ...] = ()
    has_types: bool | None = None
    aux_data: bool | None = None


def learned_of(digests: Iterable[str]) -> dict[str, Learned]:
    """Return what is known about the builds with these contents, by `content_sha256`; one query."""
    found: dict[str, Learned] = {}
    wanted = set(digests) - {""}
    rows = ScratchSuccess.objects.filter(content_sha256__in=wanted).order_by("-recorded_at") if wanted else ()
    for row in rows:
        known = found.get(row.content_sha256, Learned())
        found[row.content_sha256] = Learned(
            keys=(*known.keys, row.key)[:MOST_KEYS],
            has_types=any_known((known.has_types, row.learned.get("has_types"))),
            aux_data=any_known((known.aux_data, row.learned.get("aux_data"))),
        )
    return found
