"""What scratch servers have shown about builds."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from artifacts_app.selectors import packed_successes
from rollout.domain.words import counted, some_of
from rollout.messages import any_known, scratch_key
from rollout.models import ScratchSuccess

#: The most keys of a build's successes, the newest ones.
MOST_KEYS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """Facts about one build, of all servers that have loaded it. None: not known.

    `keys`: of its successes, the newest ones. `sources`: `package` or `node NAME` for each of them. `since`: when its
    commands and options were recorded first; a package does not have them.
    """

    keys: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    since: datetime | None = None
    has_types: bool | None = None
    aux_data: bool | None = None
    commands: frozenset[str] | None = None
    options: frozenset[str] | None = None
    differences: frozenset[str] = frozenset()


def build_facts(contents: Iterable[str]) -> dict[str, BuildFacts]:
    """Return what is known about the builds with these contents, by `content_sha256`; at most two queries."""
    wanted = set(contents) - {""}
    found: dict[str, BuildFacts] = {}
    if not wanted:
        return found
    for row in ScratchSuccess.objects.filter(content_sha256__in=wanted).order_by("-recorded_at", "key"):
        known, learned = found.get(row.content_sha256, BuildFacts()), row.learned
        found[row.content_sha256] = replace(
            _with_success(known, row.key, f"node {row.node}", learned.get("has_types"), learned.get("aux_data")),
            since=row.recorded_at,
            commands=(known.commands or frozenset()) | {*learned.get("commands", ())},
            options=(known.options or frozenset()) | {*learned.get("options", ())},
            differences=known.differences | {*learned.get("differences", ())},
        )
    for packed in packed_successes(wanted):
        args = (*packed.args, "", *packed.scratch_args)
        key = scratch_key(
            content_sha256=packed.content_sha256, server=packed.server, args=args, platform=packed.platform
        )
        known = found.get(packed.content_sha256, BuildFacts())
        found[packed.content_sha256] = _with_success(known, key, "package", packed.has_types, packed.aux_data)
    return found


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
        "in_words": list(_in_words(has_types, aux_data, commands, options, len(builds) - len(known))),
    }


def _in_words(
    has_types: bool | None,
    aux_data: bool | None,
    commands: list[str] | None,
    options: list[str] | None,
    unknown: int,
) -> Iterable[str]:
    if commands is None and has_types is None and aux_data is None:
        yield "Not known yet: the first node's scratch server will find out."
        return
    match has_types:
        case True:
            yield "It has data types: it can be upgraded and removed only by a restart of the server."
        case False:
            yield "It has no data types."
        case None:
            yield "It is not known if it has data types."
    match aux_data:
        case True:
            yield "It writes auxiliary data: without it, a server does not load an RDB file that it has saved with it."
        case False:
            yield "It writes no auxiliary data."
        case None:
            yield "It is not known if it writes auxiliary data."
    if commands is not None and options is not None:
        yield f"It adds {_named(commands, 'command')}."
        yield f"It has {_named(options, 'option')}."
    if unknown:
        yield f"{unknown} of its builds {'is' if unknown == 1 else 'are'} not known yet."


def _named(names: list[str], noun: str) -> str:
    return f"{counted(len(names), noun)}: {some_of(names)}" if names else f"no {noun}s"


def lost_options(former: str, new: str, facts: Mapping[str, BuildFacts]) -> tuple[str, ...]:
    """Return the options of the build `former` that the build `new` does not have; none if one of them is not known."""
    before, after = (facts.get(each, BuildFacts()).options for each in (former, new))
    return () if before is None or after is None else tuple(sorted(before - after))
