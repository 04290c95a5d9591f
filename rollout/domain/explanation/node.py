"""Why one node of a rollout is in its phase, and what it waits for."""

from collections.abc import Iterator
from dataclasses import replace

from eventstore import in_words
from rollout.domain.explanation.facts import NodeFacts, RolloutFacts, Wait, Why
from rollout.domain.explanation.rules import RULE_OF_REASON, Rule, rule_of_end, text_of
from rollout.domain.explanation.waits import NEXT_STEP, wait_for_blocker, wait_for_room, waits_of_blocked
from rollout.domain.node.state import NodePhase
from rollout.domain.reasons import WORDS
from rollout.domain.rollout.blockers import Blocker, blocked_by
from rollout.domain.rollout.events import NodesReleased, NodesRetried, RolloutPhase, RolloutStarted
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.rollout.step import Step, step
from rollout.domain.strategy import Offline
from rollout.domain.words import capitalized, in_utc, sentence
from rollout.messages import Phase, Reason

_AFTER_WAVE = frozenset({Blocker.SOAK, Blocker.GATE})


def explain_node(
    state: RolloutState, started: RolloutStarted, snapshot: Snapshot, facts: RolloutFacts, node: NodeFacts
) -> Why:
    next_step = Step(events=(), commands=(), wake_at=None) if state.phase.is_final else step(state, started, snapshot)
    if node.phase.is_final:
        return _explain_end(state, next_step, node)
    is_scheduled = node.phase == Phase.SCHEDULED
    waits = tuple(_turn(state, next_step, snapshot, facts, node) if is_scheduled else _answer(node))
    rule = waits[0].what
    where = f" in wave {node.wave}" if node.wave >= 0 else ""
    return Why(
        rule=rule,
        rule_text=text_of(rule, state),
        summary=f"{capitalized(node.phase)} since {in_utc(node.since)}{where}. It waits for {waits[0].text}.",
        waits_for=waits,
    )


def _explain_end(state: RolloutState, next_step: Step, node: NodeFacts) -> Why:
    rule = _rule_of_node(node)
    parts = [f"{capitalized(node.phase)} at {in_utc(node.since)}{_by(node, rule)}."]
    if node.reason is not None and not (node.canceled_by and rule == Rule.MANUAL):
        words = WORDS[node.reason]
        parts += [f"{node.reason}: {words.meaning}", sentence(node.message), words.hint]
    else:
        parts.append(sentence(node.message))
    if node.drift_reason is not None:
        words = WORDS[node.drift_reason]
        parts += [f"Since then: {node.drift_reason}: {words.meaning}", words.hint]
    waits: tuple[Wait, ...] = ()
    if node.name in _changed_nodes(next_step):
        waits = (Wait(what=Rule.NEXT_STEP, text=f"another operation on {node.name}, which is about to be scheduled"),)
    elif state.phase == RolloutPhase.ROLLING_BACK and not state.restoring and node.touched:
        waits = (Wait(what=Rule.ROLLBACK, text=f"all nodes to end; then {node.name} is restored"),)
    summary = " ".join(each for each in parts if each)
    return Why(rule=rule, rule_text=text_of(rule, state), summary=summary, waits_for=waits)


def _by(node: NodeFacts, rule: Rule) -> str:
    if node.canceled_by:
        return f" by {in_words(node.canceled_by)}"
    return "" if rule == Rule.NODE_ANSWER else f" by the rule {rule}"


def _rule_of_node(node: NodeFacts) -> Rule:
    if node.wave < 0:
        return Rule.SKIPPED_FROM_START
    if node.phase == Phase.CANCELED and node.reason == Reason.MISSING_DEPENDENCY:
        return Rule.NEEDS
    return Rule.NODE_ANSWER if node.reason is None else RULE_OF_REASON.get(node.reason, Rule.NODE_ANSWER)


def _answer(node: NodeFacts) -> Iterator[Wait]:
    does = "cancel it" if node.phase == Phase.CANCELING else "report the end"
    offline = f", and {node.name} is offline" if node.node_phase == NodePhase.OFFLINE else ""
    noted = f". {node.message}".rstrip(" .") if node.reason is not None else ""
    text = f"{node.name} to {does}; it is {node.phase}{offline}{noted}"
    yield Wait(what=Rule.NODE_DEADLINE, text=text, until=node.deadline_at)


def _turn(
    state: RolloutState, next_step: Step, snapshot: Snapshot, facts: RolloutFacts, node: NodeFacts
) -> Iterator[Wait]:
    """Yield all that keeps a scheduled node from being released; at least one."""
    is_canceled = state.phase in {RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK} and not state.restoring
    if node.name in _changed_nodes(next_step) or is_canceled:
        yield NEXT_STEP
        return
    found = [*_turn_of_rollout(state, snapshot, facts, node), *_turn_of_node(state, snapshot, node)]
    if not found and snapshot.tries_way_back:
        text = f"{facts.in_progress} to show if the former version can read what the new one writes"
        found = [Wait(what=Rule.WAY_BACK, text=text)]
    if not found:
        room = wait_for_room(state, snapshot, facts)
        found = [replace(room, text="the nodes before it in the rollout's order") if next_step.events else room]
    yield from found


def _turn_of_rollout(state: RolloutState, snapshot: Snapshot, facts: RolloutFacts, node: NodeFacts) -> Iterator[Wait]:
    if state.phase == RolloutPhase.PAUSED:
        yield Wait(what=rule_of_end(state), text=f"a person: the rollout is paused. {state.message}".rstrip(" ."))
    elif state.restoring:
        if snapshot.frozen:
            yield wait_for_blocker(Blocker.FROZEN, state, facts)
    elif (blocker := blocked_by(state, snapshot)) is not None and not (
        blocker in _AFTER_WAVE and node.wave <= state.wave
    ):
        yield wait_for_blocker(blocker, state, facts)
    if not state.restoring and node.wave > state.open_wave:
        progress = f"wave {state.wave} is {state.wave_phase}" if state.wave >= 0 else "no wave has started"
        yield Wait(what=Rule.WAVE_TURN, text=f"wave {node.wave} to start; {progress}")


def _turn_of_node(state: RolloutState, snapshot: Snapshot, node: NodeFacts) -> Iterator[Wait]:
    if node.behind:
        yield Wait(what=Rule.BEHIND, text=f"the older operation of rollout {node.behind} to end on {node.name}")
    match node.node_phase:
        case NodePhase.OFFLINE:
            rule = Rule.OFFLINE_WAIT if state.restoring or state.strategy.offline == Offline.WAIT else Rule.OFFLINE
            yield Wait(what=rule, text=f"{node.name} to come back online")
        case NodePhase.DEGRADED:
            because = f": {node.node_problem}".rstrip(" .") if node.node_problem else ""
            yield Wait(what=Rule.DEGRADED, text=f"the server of {node.name}, which is degraded{because}")
        case NodePhase.DRAINING:
            yield Wait(what=Rule.DRAINING, text=f"{node.name} to be activated")
        case NodePhase.DECOMMISSIONED:
            yield Wait(what=Rule.DECOMMISSIONED, text=f"the operation on {node.name}, which was decommissioned, to end")
        case NodePhase.PENDING:
            yield Wait(what=Rule.OFFLINE, text=f"{node.name} to join")
        case NodePhase.ONLINE:
            pass
    yield from waits_of_blocked(snapshot, node.name)
    if node.ready_at is not None and node.ready_at > snapshot.now:
        yield Wait(what=Rule.RETRY_BACKOFF, text=f"the next attempt on {node.name}", until=node.ready_at)


def _changed_nodes(next_step: Step) -> frozenset[str]:
    """Return the nodes that the step changes."""
    released = [
        node for each in next_step.events if isinstance(each, NodesReleased | NodesRetried) for node in each.nodes
    ]
    return frozenset(released) | {each.node for each in next_step.commands if hasattr(each, "node")}
