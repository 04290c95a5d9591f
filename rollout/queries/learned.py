"""What scratch servers have shown about builds."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from artifacts_app.selectors import packed_successes
from rollout.domain.node.state import Identity
from rollout.domain.words import counted, some_of
from rollout.messages import any_known, scratch_key
from rollout.models import ScratchSuccess
from rollout.queries.nodes import node_rows

#: The most keys of a build's successes, the newest ones; those of one node; and the most nodes for one key, the first ones.
MOST_KEYS = 64
MOST_KEYS_OF_NODE = 4
MOST_NODES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """Facts about one build, of all servers that have loaded it. None: not known.

    Each node may lie. So a data type or auxiliary data that one of them has seen counts, and the nodes that say so are named:
    `types_from` and `aux_data_from`, empty if the package says it too.

    `keys`: of its successes, the newest ones. `sources`: `package` or `node NAME` for each of them. `since`: when its
    commands and options were recorded first by a node. `options`: that a server has seen.
    `sure_options`: that all servers have seen.
    """

    keys: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    since: datetime | None = None
    has_types: bool | None = None
    aux_data: bool | None = None
    commands: frozenset[str] | None = None
    options: frozenset[str] | None = None
    sure_options: frozenset[str] | None = None
    types_from: tuple[str, ...] = ()
    aux_data_from: tuple[str, ...] = ()
    differences: frozenset[str] = frozenset()


def build_facts(contents: Iterable[str]) -> dict[str, BuildFacts]:
    """Return what is known about the builds with these contents, by `content_sha256`; at most two queries.

    The word of a node counts while it is in the fleet and its identity is not revoked.
    """
    wanted = set(contents) - {""}
    found: dict[str, BuildFacts] = {}
    if not wanted:
        return found
    for row in believed_successes().filter(content_sha256__in=wanted).order_by("-recorded_at", "key", "node"):
        known, learned = found.get(row.content_sha256, BuildFacts()), row.learned
        says_types, says_aux = (learned.get(name) is True for name in ("has_types", "aux_data"))
        found[row.content_sha256] = replace(
            _with_success(known, row.key, f"node {row.node}", learned.get("has_types"), learned.get("aux_data")),
            since=row.recorded_at,
            types_from=_with_name(known.types_from, row.node) if says_types else known.types_from,
            aux_data_from=_with_name(known.aux_data_from, row.node) if says_aux else known.aux_data_from,
            **_with_names(known, frozenset(learned.get("commands", ())), frozenset(learned.get("options", ()))),
            differences=known.differences | {*learned.get("differences", ())},
        )
    for packed in packed_successes(wanted):
        args = (*packed.args, "", *packed.scratch_args)
        key = scratch_key(
            content_sha256=packed.content_sha256, server=packed.server, args=args, platform=packed.platform
        )
        known = found.get(packed.content_sha256, BuildFacts())
        known = _with_success(known, key, "package", packed.has_types, packed.aux_data)
        found[packed.content_sha256] = replace(
            known,
            types_from=() if packed.has_types else known.types_from,
            aux_data_from=() if packed.aux_data else known.aux_data_from,
            **_with_names(known, packed.commands, packed.options),
        )
    return found


def _with_names(known: BuildFacts, commands: frozenset[str] | None, options: frozenset[str] | None) -> dict[str, Any]:
    """Return the fields of names, with those that another server has seen. None: it does not say."""
    fields: dict[str, Any] = {}
    if commands is not None:
        fields["commands"] = (known.commands or frozenset()) | commands
    if options is not None:
        fields["options"] = (known.options or frozenset()) | options
        fields["sure_options"] = options if known.sure_options is None else known.sure_options & options
    return fields


def believed_successes() -> QuerySet[ScratchSuccess]:
    """Return the successes of nodes that are in the fleet and whose identity is not revoked."""
    nodes = node_rows().exclude(identity=Identity.REVOKED).order_by().values("name")
    return ScratchSuccess.objects.filter(node__in=nodes)


def _with_name(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else tuple(sorted((*names, name)))


def _with_success(
    known: BuildFacts, key: str, source: str, has_types: bool | None, aux_data: bool | None
) -> BuildFacts:
    is_new = key not in known.keys and len(known.keys) < MOST_KEYS
    return replace(
        known,
        keys=(*known.keys, key) if is_new else known.keys,
        sources=(*known.sources, source) if is_new else known.sources,
        has_types=any_known((known.has_types, has_types)),
        aux_data=any_known((known.aux_data, aux_data)),
    )


def learned_document(contents: Collection[str], facts: Mapping[str, BuildFacts]) -> dict[str, Any]:
    """Return as JSON what is known about the builds with these contents together. A fact is null if it is not known."""
    builds = set(contents) - {""}
    known = [facts[each] for each in builds if each in facts]
    is_complete = len(known) == len(builds)
    has_types, aux_data = (
        answer if answer or is_complete else None
        for answer in (any_known(each.has_types for each in known), any_known(each.aux_data for each in known))
    )
    commands, options = (
        sorted(set().union(*names))
        if (names := [found for each in known if (found := getattr(each, name)) is not None])
        else None
        for name in ("commands", "options")
    )
    differences = sorted(set().union(*(each.differences for each in known))) if known else None
    return {
        "builds": len(builds),
        "known_builds": len(known),
        "has_types": has_types,
        "aux_data": aux_data,
        "commands": commands,
        "options": options,
        "differences": differences,
        "in_words": list(
            _in_words(
                has_types,
                aux_data,
                commands,
                options,
                len(builds) - len(known),
                types_from=_sayers([each.types_from for each in known if each.has_types]),
                aux_data_from=_sayers([each.aux_data_from for each in known if each.aux_data]),
            )
        ),
    }


def _in_words(
    has_types: bool | None,
    aux_data: bool | None,
    commands: list[str] | None,
    options: list[str] | None,
    unknown: int,
    *,
    types_from: str,
    aux_data_from: str,
) -> Iterable[str]:
    if commands is None and has_types is None and aux_data is None:
        yield "Not known yet: the first node's scratch server will find out."
        return
    match has_types:
        case True:
            yield f"It has data types{types_from}: it can be upgraded and removed only by a restart of the server."
        case False:
            yield "It has no data types."
        case None:
            yield "It is not known if it has data types."
    match aux_data:
        case True:
            words = "without it, a server does not load an RDB file that it has saved with it."
            yield f"It writes auxiliary data{aux_data_from}: {words}"
        case False:
            yield "It writes no auxiliary data."
        case None:
            yield "It is not known if it writes auxiliary data."
    if commands is not None and options is not None:
        yield f"It adds {_named(commands, 'command')}."
        yield f"It has {_named(options, 'option')}."
    else:
        yield "Its commands and options are not known yet."
    if unknown:
        yield f"{unknown} of its builds {'is' if unknown == 1 else 'are'} not known yet."


def _sayers(sources: Collection[tuple[str, ...]]) -> str:
    """Return a clause that names the nodes that say it, empty if a package says it for one of the builds."""
    names = sorted(set().union(*sources)) if sources and all(sources) else []
    return f", as {some_of(names)} {'says' if len(names) == 1 else 'say'}" if names else ""


def _named(names: list[str], noun: str) -> str:
    return f"{counted(len(names), noun)}: {some_of(names)}" if names else f"no {noun}s"


def lost_options(former: str, new: str, facts: Mapping[str, BuildFacts]) -> tuple[str, ...]:
    """Return the options of the build `former` that a server has not seen in the build `new`; none if one is not known."""
    before, after = facts.get(former, BuildFacts()).options, facts.get(new, BuildFacts()).sure_options
    return () if before is None or after is None else tuple(sorted(before - after))
