"""Records loads in scratch servers that have succeeded, and forgets those of deleted builds."""

from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter

import msgspec
from django.db.models import Exists, F, OuterRef, Subquery

from artifacts_app.selectors import contents_with_builds
from eventstore import database_now
from rollout.messages import Report
from rollout.models import NodeModule, Operation, ScratchSuccess
from rollout.projections.counters import operation_key
from rollout.queries.learned import MOST_KEYS


def keep_successes(reports: Iterable[Report], operations: Mapping[str, Operation]) -> None:
    """Keep the successes in reports that were recorded, in the caller's transaction. `operations`: by key."""
    now = database_now()
    rows = {}
    for each in reports:
        operation = operations.get(operation_key(each.rollout, each.node))
        if each.scratch is None or each.scratch.problem or each.scratch.source or operation is None:
            continue
        if operation.module_name != each.module_name or not operation.content_sha256:
            continue
        rows[operation.content_sha256, each.scratch.key] = ScratchSuccess(
            key=each.scratch.key,
            content_sha256=operation.content_sha256,
            node=each.node,
            learned=msgspec.to_builtins(each.scratch),
            recorded_at=now,
        )
    if rows:
        ScratchSuccess.objects.bulk_create(
            sorted(rows.values(), key=attrgetter("content_sha256", "key")), ignore_conflicts=True
        )
        _forget({row.content_sha256 for row in rows.values()})


def _forget(contents: Collection[str]) -> None:
    """Delete the oldest successes of these builds, if one has more than `MOST_KEYS`."""
    newer = ScratchSuccess.objects.filter(content_sha256=OuterRef("content_sha256")).order_by("-recorded_at", "key")
    oldest_kept = newer.values("recorded_at")[MOST_KEYS - 1 : MOST_KEYS]
    rows = ScratchSuccess.objects.filter(content_sha256__in=contents)
    rows.annotate(oldest_kept=Subquery(oldest_kept)).filter(recorded_at__lt=F("oldest_kept")).delete()


def forget_successes_of_deleted_builds() -> int:
    """Delete the successes of builds that neither the catalogue nor a node has. Return their number."""
    loaded = NodeModule.objects.filter(content_sha256=OuterRef("content_sha256"))
    rows = ScratchSuccess.objects.filter(~Exists(loaded))
    contents = set(rows.values_list("content_sha256", flat=True).distinct())
    deleted = contents - contents_with_builds(contents)
    return ScratchSuccess.objects.filter(content_sha256__in=deleted).delete()[0]
