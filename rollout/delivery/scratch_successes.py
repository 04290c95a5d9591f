"""Loads in scratch servers that have succeeded: recorded from reports, or packed with the module. They are sent with
commands to nodes that can run none."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
from django.db.models import Exists, F, OuterRef, Subquery

from artifacts_app.selectors import contents_with_builds, packed_successes
from eventstore import database_now
from rollout.messages import Report, any_known, scratch_key
from rollout.models import NodeModule, Operation, ScratchSuccess
from rollout.projections.counters import operation_key

#: The most keys in a command, the newest ones, and the most that are kept of one build.
MOST_KEYS = 64


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
        rows[each.scratch.key] = ScratchSuccess(
            key=each.scratch.key,
            content_sha256=operation.content_sha256,
            node=each.node,
            learned=msgspec.to_builtins(each.scratch),
            recorded_at=now,
        )
    if rows:
        ScratchSuccess.objects.bulk_create(sorted(rows.values(), key=attrgetter("key")), ignore_conflicts=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What scratch servers have shown about one build. None: not known. `keys`: of its successes, the newest ones; `sources`
    has for each of them `package` or `node NAME`."""

    keys: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    has_types: bool | None = None
    aux_data: bool | None = None


def learned_of(digests: Iterable[str]) -> dict[str, Learned]:
    """Return what is known about the builds with these contents, by `content_sha256`; two queries."""
    found: dict[str, Learned] = {}
    contents = set(digests) - {""}
    if not contents:
        return found
    rows = ScratchSuccess.objects.filter(content_sha256__in=contents).order_by("-recorded_at", "key")
    for row in rows:
        _add(found, row.content_sha256, row.key, f"node {row.node}", row.learned)
    for packed in packed_successes(contents):
        args = (*packed.args, "", *packed.scratch_args)
        key = scratch_key(
            content_sha256=packed.content_sha256, server=packed.server, args=args, platform=packed.platform
        )
        _add(found, packed.content_sha256, key, "package", {"has_types": packed.has_types, "aux_data": packed.aux_data})
    return found


def _add(found: dict[str, Learned], content: str, key: str, source: str, learned: Mapping[str, Any]) -> None:
    known = found.get(content, Learned())
    is_new = key not in known.keys and len(known.keys) < MOST_KEYS
    found[content] = Learned(
        keys=(*known.keys, key) if is_new else known.keys,
        sources=(*known.sources, source) if is_new else known.sources,
        has_types=any_known((known.has_types, learned.get("has_types"))),
        aux_data=any_known((known.aux_data, learned.get("aux_data"))),
    )
