"""Why a rollout is in its phase, and what it waits for.

The explanation asks what decides: `step` for what is due, and `blocked_by`, the release limits and the progress deadline
for what blocks it. So it cannot differ from the decisions.
"""

from collections.abc import Iterator
from itertools import islice

from eventstore import in_words
from rollout.domain.explanation.facts import RolloutFacts, Wait, Why
from rollout.domain.explanation.rules import Rule, rule_of_end, text_of
from rollout.domain.explanation.waits import (
    NEXT_STEP,
    wait_for_blocker,
    wait_for_room,
    waits_in_progress,
    waits_of_blocked,
)
from rollout.domain.rollout.blockers import Blocker, blocked_by
from rollout.domain.rollout.events import RolloutPhase, RolloutStarted
from rollout.domain.rollout.progress_deadline import progress_deadline
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.rollout.step import step
from rollout.domain.words import MOST_NAMED, capitalized, counted, in_utc, listed, sentence
from rollout.messages import Phase

#: Phases of a rollout that a person or a rule has stopped.
STOPPED = frozenset({RolloutPhase.PAUSED, RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK})


def explain_rollout(state: RolloutState, started: RolloutStarted, snapshot: Snapshot, facts: RolloutFacts) -> Why:
    waits = () if state.phase.is_final else tuple(_waits(state, started, snapshot, facts)) or (NEXT_STEP,)
    rule = rule_of_end(state) if state.phase.is_final or state.phase in STOPPED else waits[0].what
    return Why(
        rule=rule,
        rule_text=text_of(rule, state),
        summary=" ".join(_summary(state, snapshot, facts, rule, waits)),
        waits_for=waits,
    )


def _summary(
    state: RolloutState, snapshot: Snapshot, facts: RolloutFacts, rule: Rule, waits: tuple[Wait, ...]
) -> Iterator[str]:
    when = f"{capitalized(state.phase)} {'at' if state.phase.is_final else 'since'} {in_utc(facts.since)}"
    if state.phase in STOPPED or state.phase.is_final:
        yield f"{when}{_by(rule, facts)}: {sentence(state.message or _outcome(snapshot))}"
    else:
        wave = f", wave {state.wave} of {len(snapshot.waves)} is {state.wave_phase}" if state.wave >= 0 else ""
        yield f"{when}{wave}: {_outcome(snapshot)}."
    if facts.before:
        yield f"Earlier: {listed(facts.before)}"
    if facts.failed:
        yield listed(facts.failed)
    yield from facts.related
    if waits:
        yield f"It waits for {waits[0].text}."


def _by(rule: Rule, facts: RolloutFacts) -> str:
    if rule in {Rule.MANUAL, Rule.APPROVAL}:
        return f" by {in_words(facts.actor)}"
    return "" if rule == Rule.OUTCOME else f" by the rule {rule}"


def _outcome(snapshot: Snapshot) -> str:
    counts = snapshot.counts
    parts = [f"{counts.get(Phase.SUCCEEDED, 0)} of {counted(snapshot.total, 'node')} succeeded"]
    parts += [
        f"{count} {word}"
        for word, count in (
            ("in progress", snapshot.in_progress),
            *(
                (phase.replace("_", " "), counts.get(phase, 0))
                for phase in Phase
                if phase == Phase.SCHEDULED or (phase.is_final and phase != Phase.SUCCEEDED)
            ),
        )
        if count
    ]
    return ", ".join(parts)


def _waits(state: RolloutState, started: RolloutStarted, snapshot: Snapshot, facts: RolloutFacts) -> Iterator[Wait]:
    """Yield all that keeps the rollout from its end. Nothing, only if the snapshot is older than the log."""
    next_step = step(state, started, snapshot)
    if next_step.events or next_step.commands:
        yield NEXT_STEP
        yield from waits_in_progress(facts)
        return
    match state.phase:
        case RolloutPhase.PAUSED:
            retried = (
                f"; {facts.retried} will be tried again only after `modfleet rollout resume {started.rollout}`"
                if facts.retried.count
                else ""
            )
            yield Wait(what=Rule.MANUAL, text=f"a person to resume it, roll it back or abort it{retried}")
            yield from waits_in_progress(facts)
        case RolloutPhase.ABORTING:
            yield from waits_in_progress(facts)
        case RolloutPhase.ROLLING_BACK:
            if snapshot.frozen:
                yield wait_for_blocker(Blocker.FROZEN, state, facts)
            yield from _nodes(state, snapshot, facts) if state.restoring else waits_in_progress(facts)
        case _:
            blocker = blocked_by(state, snapshot)
            if blocker is not None:
                yield wait_for_blocker(blocker, state, facts)
            releases_none = blocker in {Blocker.FROZEN, Blocker.ONE_WAY}
            yield from waits_in_progress(facts) if releases_none else _nodes(state, snapshot, facts)


def _nodes(state: RolloutState, snapshot: Snapshot, facts: RolloutFacts) -> Iterator[Wait]:
    yield from waits_in_progress(facts)
    if snapshot.ready:
        yield wait_for_room(state, snapshot, facts)
    yield from islice(waits_of_blocked(snapshot), MOST_NAMED)
    if facts.offline.count:
        yield Wait(what=Rule.OFFLINE_WAIT, text=f"{facts.offline} to come back online")
    if facts.degraded.count:
        whose = "the server" if facts.degraded.count == 1 else "the servers"
        look = f"`modfleet nodes show {facts.degraded.names[0]}` tells the reason"
        yield Wait(what=Rule.DEGRADED, text=f"{whose} of {facts.degraded} to be usable again: {look}")
    if facts.draining.count:
        yield Wait(what=Rule.DRAINING, text=f"{facts.draining} to be activated")
    if facts.behind.count:
        yield Wait(what=Rule.BEHIND, text=f"older operations on {facts.behind} to end")
    if facts.backing_off.count:
        yield Wait(
            what=Rule.RETRY_BACKOFF, text=f"the next attempt on {facts.backing_off}", until=facts.backing_off.until
        )
    if (deadline := progress_deadline(state, snapshot)) is not None:
        yield Wait(what=Rule.PROGRESS_DEADLINE, text="a success, or the progress deadline", until=deadline)
