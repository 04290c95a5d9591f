"""Records loads in scratch servers that have succeeded, and forgets those of deleted builds."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter

import msgspec
from django.db.models import Exists, OuterRef

from artifacts_app.selectors import contents_with_builds
from eventstore import database_now
from rollout.messages import Report
from rollout.models import NodeModule, Operation, ScratchSuccess
from rollout.projections.counters import operation_key
from rollout.queries.learned import MOST_KEYS, MOST_KEYS_OF_NODE, MOST_NODES, believed_successes


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
        rows[operation.content_sha256, each.scratch.key, each.node] = ScratchSuccess(
            key=each.scratch.key,
            content_sha256=operation.content_sha256,
            node=each.node,
            learned=msgspec.to_builtins(each.scratch),
            recorded_at=now,
        )
    if rows:
        ScratchSuccess.objects.bulk_create(
            sorted(rows.values(), key=attrgetter("content_sha256", "key", "node")), ignore_conflicts=True
        )
        _forget({row.content_sha256 for row in rows.values()})


def _forget(contents: Collection[str]) -> None:
    """Delete what these builds have too many of: so that a node that lies again and again displaces no other node's word."""
    # Only nodes of the fleet count, so a node that has left takes no place.
    rows = believed_successes().filter(content_sha256__in=contents).order_by("-recorded_at", "key", "node")
    found = list(rows.values_list("content_sha256", "key", "node", "pk"))
    of_node: Counter[tuple[str, str]] = Counter()
    few: list[tuple[str, str, int]] = []
    extra: list[int] = []
    for content, key, node, pk in found:  # the newest first
        of_node[content, node] += 1
        if of_node[content, node] > MOST_KEYS_OF_NODE:
            extra.append(pk)
        else:
            few.append((content, key, pk))
    keys: dict[str, dict[str, None]] = {}
    for content, key, _ in few:
        keys.setdefault(content, {})[key] = None
    kept = {content: {*list(names)[:MOST_KEYS]} for content, names in keys.items()}
    of_key: Counter[tuple[str, str]] = Counter()
    for content, key, pk in reversed(few):  # the oldest first
        of_key[content, key] += 1
        if key not in kept[content] or of_key[content, key] > MOST_NODES:
            extra.append(pk)
    if extra:
        ScratchSuccess.objects.filter(pk__in=extra).delete()


def forget_useless_successes() -> int:
    """Delete the successes of builds that neither the catalogue nor a node has, and those of nodes that have left the fleet or
    whose identity was revoked. Return their number."""
    left = ScratchSuccess.objects.exclude(pk__in=believed_successes().values("pk")).delete()[0]
    loaded = NodeModule.objects.filter(content_sha256=OuterRef("content_sha256"))
    rows = ScratchSuccess.objects.filter(~Exists(loaded))
    contents = set(rows.values_list("content_sha256", flat=True).distinct())
    deleted = contents - contents_with_builds(contents)
    return left + ScratchSuccess.objects.filter(content_sha256__in=deleted).delete()[0]
