"""Loads in scratch servers that have succeeded: recorded from reports, sent with commands to nodes that can run none."""

from collections.abc import Iterable, Mapping
from operator import attrgetter

import msgspec

from eventstore import database_now
from rollout.messages import Report
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


def successes_of(digests: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the keys of the successes with these contents, by `content_sha256`; one query."""
    found: dict[str, tuple[str, ...]] = {}
    wanted = set(digests)
    rows = ScratchSuccess.objects.filter(content_sha256__in=wanted).order_by("-recorded_at") if wanted else ()
    for row in rows:
        known = found.get(row.content_sha256, ())
        if len(known) < MOST_KEYS:
            found[row.content_sha256] = (*known, row.key)
    return found
