"""What scratch servers have shown about builds, for people."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollout.domain.words import some_of
from rollout.messages import any_known
from rollout.models import ScratchSuccess


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """Facts about one build, of all servers that have loaded it. None: not known. `since`: when the first one was recorded."""

    since: datetime
    has_types: bool | None = None
    aux_data: bool | None = None
    commands: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()
    differences: frozenset[str] = frozenset()


def build_facts(contents: Iterable[str]) -> dict[str, BuildFacts]:
    """Return what is known about the builds with these contents, by `content_sha256`; at most one query."""
    wanted = set(contents) - {""}
    found: dict[str, BuildFacts] = {}
    rows = ScratchSuccess.objects.filter(content_sha256__in=wanted).order_by("recorded_at") if wanted else ()
    for row in rows:
        learned = row.learned
        known = found.get(row.content_sha256, BuildFacts(since=row.recorded_at))
        found[row.content_sha256] = BuildFacts(
            has_types=any_known((known.has_types, learned.get("has_types"))),
            aux_data=any_known((known.aux_data, learned.get("aux_data"))),
            commands=known.commands | {*learned.get("commands", ())},
            options=known.options | {*learned.get("options", ())},
            differences=known.differences | {*learned.get("differences", ())},
            since=known.since,
        )
    return found


def learned_document(contents: Collection[str], facts: Mapping[str, BuildFacts]) -> dict[str, Any]:
    """Return as JSON what is known about the builds with these contents together. A fact is null if it is not known."""
    builds = set(contents) - {""}
    known = [facts[each] for each in builds if each in facts]
    is_complete = len(known) == len(builds)
    has_types, aux_data = (
        answer if answer or is_complete else None
        for answer in (any_known(each.has_types for each in known), any_known(each.aux_data for each in known))
    )
    commands, options, differences = (
        sorted(set().union(*(getattr(each, name) for each in known))) if known else None
        for name in ("commands", "options", "differences")
    )
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
    if commands is None or options is None:
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
    yield f"It adds {_counted(commands, 'command')}."
    yield f"It has {_counted(options, 'option')}."
    if unknown:
        yield f"{unknown} of its builds {'is' if unknown == 1 else 'are'} not known yet."


def _counted(names: list[str], noun: str) -> str:
    if not names:
        return f"no {noun}s"
    return f"{len(names)} {noun}{'s' if names[1:] else ''}: {some_of(names)}"


def lost_options(former: str, new: str, facts: Mapping[str, BuildFacts]) -> tuple[str, ...]:
    """Return the options of the build `former` that the build `new` does not have; none if one of them is not known."""
    if former not in facts or new not in facts:
        return ()
    return tuple(sorted(facts[former].options - facts[new].options))
