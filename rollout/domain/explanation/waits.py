"""What a rollout or a node waits for. The waits follow from the same functions as the decisions."""

from collections.abc import Iterator

from rollout.domain.explanation.facts import RolloutFacts, Wait
from rollout.domain.explanation.rules import RULE_OF_BLOCK, Rule
from rollout.domain.rollout.blockers import Blocker
from rollout.domain.rollout.one_way import what_is_one_way
from rollout.domain.rollout.release_limits import free_slots, spare_nodes
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.words import counted

NEXT_STEP = Wait(what=Rule.NEXT_STEP, text="its next step, which is about to start")


def waits_in_progress(facts: RolloutFacts) -> Iterator[Wait]:
    if facts.in_progress.count:
        reports = "the report" if facts.in_progress.count == 1 else "the reports"
        silent = f"; {facts.silent} {'is' if facts.silent.count == 1 else 'are'} offline" if facts.silent.count else ""
        yield Wait(
            what=Rule.NODE_DEADLINE,
            text=f"{reports} of {facts.in_progress}, or the deadline{silent}",
            until=facts.in_progress.until,
        )


def wait_for_blocker(blocker: Blocker, state: RolloutState, facts: RolloutFacts) -> Wait:
    match blocker:
        case Blocker.APPROVAL:
            return Wait(what=Rule.APPROVAL, text="a person other than the one who started it to approve it")
        case Blocker.START_AT:
            return Wait(what=Rule.START_AT, text="its start time", until=state.strategy.start_at)
        case Blocker.NEEDS:
            return Wait(what=Rule.NEEDS, text=f"the rollouts that it needs: {', '.join(facts.needs)}")
        case Blocker.SOAK:
            return Wait(what=Rule.SOAK, text=f"the soak of wave {state.wave} to end", until=state.soak_until)
        case Blocker.GATE:
            return Wait(what=Rule.GATE, text=f"a person to promote it: the gate after wave {state.wave} is closed")
        case Blocker.ONE_WAY:
            shown = state.one_way and state.started and what_is_one_way(state.one_way, state.started.version)
            return Wait(
                what=Rule.ONE_WAY, text=f"a person to promote it: there is no rollback. {shown or ''}".rstrip(" .")
            )
        case Blocker.FROZEN:
            return Wait(what=Rule.FROZEN, text=f"a thaw: the fleet is frozen {facts.frozen}")


def waits_of_blocked(snapshot: Snapshot, node: str | None = None) -> Iterator[Wait]:
    """Yield what each blocked node waits for, or only the node of this name."""
    for each in snapshot.blocked:
        if node in {None, each.node}:
            yield Wait(what=RULE_OF_BLOCK[each.block], text=each.text, until=each.until)


def wait_for_room(state: RolloutState, snapshot: Snapshot, facts: RolloutFacts) -> Wait:
    """Return which limit keeps ready nodes from being released."""
    if 0 < free_slots(state, snapshot) > spare_nodes(state, snapshot):
        return Wait(what=Rule.MIN_HEALTHY, text=f"more than {state.strategy.kept_healthy(state.nodes)} healthy nodes")
    return Wait(
        what=Rule.MAX_PARALLEL,
        text=f"a free slot: {counted(snapshot.in_progress, 'node')} {'is' if snapshot.in_progress == 1 else 'are'} in progress",
        until=facts.in_progress.until,
    )
