"""Why a rollout, or one of its nodes, is in its phase, and what it waits for, in words.

It asks what decides: `step` whether anything is due, `held`, `free_slots`, `spare_nodes` and `progress_deadline` why
nothing is. So an explanation cannot differ from a decision. The rules' sentences are in `docs/reference/why.md` too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from eventstore import in_words
from rollout.domain.node.decider import NodePhase
from rollout.domain.reasons import WORDS
from rollout.domain.rollout.decider import Fleet, Hold, RolloutState, free_slots, held, progress_deadline, spare_nodes
from rollout.domain.rollout.events import NodesReleased, NodesRetried, RolloutPhase, RolloutStarted
from rollout.domain.rollout.step import Step, step
from rollout.domain.strategy import Offline
from rollout.messages import Phase, Reason

#: How many nodes are named before the others are only counted.
NAMED = 5


class Rule(StrEnum):
    """What a rollout goes by: stable, and meant for machines."""

    APPROVAL = "approval"
    START_AT = "start_at"
    NEEDS = "needs"
    FROZEN = "frozen"
    WAVE_TURN = "wave_turn"
    SOAK = "soak"
    GATE = "gate"
    MAX_PARALLEL = "max_parallel"
    MIN_HEALTHY = "min_healthy"
    NODE_DEADLINE = "node_deadline"
    NODE_ANSWER = "node_answer"
    OFFLINE_WAIT = "offline_wait"
    OFFLINE = "offline"
    DRAINING = "draining"
    BEHIND = "behind"
    RETRY_BACKOFF = "retry_backoff"
    SKIPPED_FROM_START = "skipped_from_start"
    DECOMMISSIONED = "decommissioned"
    MAX_FAILURES = "max_failures"
    PROGRESS_DEADLINE = "progress_deadline"
    NEWER_ROLLOUT = "newer_rollout"
    MANUAL = "manual"
    ROLLBACK = "rollback"
    OUTCOME = "outcome"
    NEXT_STEP = "next_step"


RULES: Mapping[Rule, str] = {
    Rule.APPROVAL: "A person other than the one who started the rollout has to approve it: approval is true.",
    Rule.START_AT: "Nothing is released before start_at: {strategy.start_at}.",
    Rule.NEEDS: "The rollouts of the modules that this one needs have to succeed first.",
    Rule.FROZEN: "Nothing is released while the fleet is frozen.",
    Rule.WAVE_TURN: "Waves run one after the other: a wave starts when the one before it has passed.",
    Rule.SOAK: "After each wave, health is watched for soak_seconds: {strategy.soak_seconds:g} s.",
    Rule.GATE: "After each wave except the last, a person has to promote: gate is {strategy.gate}.",
    Rule.MAX_PARALLEL: (
        "At most {parallel} of {nodes} nodes are in progress at once: max_parallel is {strategy.max_parallel}."
    ),
    Rule.MIN_HEALTHY: (
        "At least {kept} of {nodes} nodes stay online, without an operation in progress and without a failure: "
        "min_healthy is {strategy.min_healthy}."
    ),
    Rule.NODE_DEADLINE: "A node that was released has to answer within node_deadline_seconds, "
    "{strategy.node_deadline_seconds:g} s. Otherwise it times out.",
    Rule.NODE_ANSWER: "The node's own answer decides how its operation ends.",
    Rule.OFFLINE_WAIT: "An offline node gets its turn when it is back online.",
    Rule.OFFLINE: "The rollout does not wait for a node that is offline when it is its turn: offline is {strategy.offline}.",
    Rule.DRAINING: "A draining node gets no new operation until it is activated.",
    Rule.BEHIND: "A node runs one operation of a module at a time: a newer one waits until the older one has ended.",
    Rule.RETRY_BACKOFF: "A node that failed is retried at most {strategy.retries.limit} times. The wait before a retry "
    "doubles each time, from {strategy.retries.backoff_seconds:g} s.",
    Rule.SKIPPED_FROM_START: "A node on which nothing can be done is skipped from the start, and is in no wave.",
    Rule.DECOMMISSIONED: "The rollout does not wait for a node that was decommissioned.",
    Rule.MAX_FAILURES: "The rollout stops when more nodes have failed than max_failures ({strategy.max_failures}) "
    "accepts, in one wave or in total; on_failure is {strategy.on_failure}.",
    Rule.PROGRESS_DEADLINE: "The rollout stops when no node succeeds for progress_deadline_seconds, "
    "{strategy.progress_deadline_seconds:g} s, while a wave is running; on_failure is {strategy.on_failure}.",
    Rule.NEWER_ROLLOUT: "A newer rollout of the module takes over what an older one has not started.",
    Rule.MANUAL: "A person requested this.",
    Rule.ROLLBACK: "When no node has an operation in progress, each node that the rollout has changed gets back what it had "
    "before, unless a newer rollout has changed it since or is about to.",
    Rule.OUTCOME: "A rollout ends when all its nodes have ended. Nodes that were decommissioned or that a person has canceled "
    "do not count. The rollout is succeeded if all others succeeded or were skipped, completed_with_failures if some of them "
    "did, failed if none did, and aborted if there are no others.",
    Rule.NEXT_STEP: "Nothing blocks the rollout: its next step is about to be taken.",
}

_OF_REASONS: Mapping[Reason, Rule] = {
    Reason.MANUAL: Rule.MANUAL,
    Reason.ERROR_THRESHOLD: Rule.MAX_FAILURES,
    Reason.PROGRESS_DEADLINE: Rule.PROGRESS_DEADLINE,
    Reason.NEWER_ROLLOUT: Rule.NEWER_ROLLOUT,
    Reason.NODE_DEADLINE: Rule.NODE_DEADLINE,
    Reason.NODE_UNREACHABLE: Rule.OFFLINE,
    Reason.NODE_DECOMMISSIONED: Rule.DECOMMISSIONED,
}

#: Phases of a rollout that a person or a rule has stopped.
STOPPED = frozenset({RolloutPhase.PAUSED, RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Some of a rollout's nodes: how many they are, and the first few by name. By `until` it is over, if that is
    known."""

    count: int = 0
    names: tuple[str, ...] = ()
    until: datetime | None = None

    def __str__(self) -> str:
        more = self.count - len(self.names)
        return ", ".join(self.names) + (f" and {more} more" if more else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is told of a rollout beside its rules. `since`: when it came to its phase; `actor`: who asked last for
    anything else than to go on. `before`: what has stopped it and what people did, `failed`: what the first attempts that
    failed said, also those that were retried or undone, and what took the place of others. `besides`: sentences about the
    rollouts that it follows or that follow it, and about nodes that its rollback leaves alone. The groups but `in_hand` are
    of scheduled nodes that may
    have their turn; `frozen`: who froze the fleet, and why."""

    since: datetime
    actor: str
    before: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()
    in_hand: Nodes = Nodes()
    offline: Nodes = Nodes()
    draining: Nodes = Nodes()
    behind: Nodes = Nodes()
    backing_off: Nodes = Nodes()
    needs: tuple[str, ...] = ()
    frozen: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One node of a rollout. `since`: when it came to its phase; `behind`: the rollout that is waited for, or empty;
    `touched`: it was released; `canceled_by`: the person who canceled it, or whose newer rollout took its place."""

    node: str
    node_phase: NodePhase
    wave: int
    phase: Phase
    since: datetime
    reason: Reason | None = None
    message: str = ""
    behind: str = ""
    ready_at: datetime | None = None
    deadline_at: datetime | None = None
    touched: bool = False
    canceled_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    what: Rule
    text: str
    until: datetime | None = None


_NEXT_STEP = Wait(what=Rule.NEXT_STEP, text="the rollout's next step, which is about to be taken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """`rule` decided; `rule_text` says it with its numbers."""

    rule: Rule
    rule_text: str
    summary: str
    waits_for: tuple[Wait, ...] = ()


def text_of(rule: Rule, state: RolloutState) -> str:
    """The rule in words, with the numbers that it has in this rollout."""
    strategy, nodes = state.strategy, state.nodes
    return RULES[rule].format(
        strategy=strategy, nodes=nodes, parallel=strategy.parallel(nodes), kept=strategy.kept_healthy(nodes)
    )


# --- A rollout --------------------------------------------------------------------------------------------------------


def explain_rollout(state: RolloutState, started: RolloutStarted, fleet: Fleet, scene: Scene) -> Why:
    waits = () if state.phase.is_final else tuple(_waits(state, started, fleet, scene)) or (_NEXT_STEP,)
    rule = _rule_of_end(state) if state.phase.is_final or state.phase in STOPPED else waits[0].what
    return Why(
        rule=rule,
        rule_text=text_of(rule, state),
        summary=" ".join(_summary(state, fleet, scene, rule, waits)),
        waits_for=waits,
    )


def _rule_of_end(state: RolloutState) -> Rule:
    """By which it was stopped, or has ended."""
    if state.rejected:
        return Rule.APPROVAL
    return Rule.OUTCOME if state.reason is None else rule_of(state.reason)


def rule_of(reason: Reason) -> Rule:
    """Return the rule by which a rollout is stopped with this reason."""
    return Rule.NEEDS if reason == Reason.MISSING_DEPENDENCY else _OF_REASONS.get(reason, Rule.OUTCOME)


def _summary(state: RolloutState, fleet: Fleet, scene: Scene, rule: Rule, waits: tuple[Wait, ...]) -> Iterator[str]:
    when = f"{_words(state.phase)} {'at' if state.phase.is_final else 'since'} {in_utc(scene.since)}"
    if state.phase in STOPPED or state.phase.is_final:
        by = f"by {in_words(scene.actor)}" if rule in {Rule.MANUAL, Rule.APPROVAL} else f"by the rule {rule}"
        yield f"{when} {by}: {sentence(state.message or _counted(fleet))}"
    else:
        wave = f", wave {state.wave} of {len(fleet.waves)} is {state.wave_phase}" if state.wave >= 0 else ""
        yield f"{when}{wave}: {_counted(fleet)}."
    if scene.before:
        yield f"Before: {listed(scene.before)}"
    if scene.failed:
        yield listed(scene.failed)
    yield from scene.besides
    if waits:
        yield f"It waits for {waits[0].text}."


def _counted(fleet: Fleet) -> str:
    counts = fleet.counts
    said = [f"{counts.get(Phase.SUCCEEDED, 0)} of {fleet.total} nodes succeeded"]
    said += [
        f"{count} {word}"
        for word, count in (
            ("in progress", fleet.in_hand),
            *(
                (phase.replace("_", " "), counts.get(phase, 0))
                for phase in Phase
                if phase == Phase.SCHEDULED or (phase.is_final and phase != Phase.SUCCEEDED)
            ),
        )
        if count
    ]
    return ", ".join(said)


def _waits(state: RolloutState, started: RolloutStarted, fleet: Fleet, scene: Scene) -> Iterator[Wait]:
    """All that keeps it from its end; nothing only if what was read is older than what stands in the log."""
    taken = step(state, started, fleet)
    if taken.events or taken.commands:
        yield _NEXT_STEP
        yield from _in_hand(scene)
        return
    match state.phase:
        case RolloutPhase.PAUSED:
            yield Wait(what=Rule.MANUAL, text="a person who resumes it, rolls it back or aborts it")
            yield from _in_hand(scene)
        case RolloutPhase.ABORTING:
            yield from _in_hand(scene)
        case RolloutPhase.ROLLING_BACK:
            if fleet.frozen:
                yield _held(Hold.FROZEN, state, scene)
            yield from _nodes(state, fleet, scene) if state.restoring else _in_hand(scene)
        case _:
            hold = held(state, fleet)
            if hold is not None:
                yield _held(hold, state, scene)
            yield from _in_hand(scene) if hold == Hold.FROZEN else _nodes(state, fleet, scene)


def _in_hand(scene: Scene) -> Iterator[Wait]:
    if scene.in_hand.count:
        answer = "the answer" if scene.in_hand.count == 1 else "the answers"
        yield Wait(what=Rule.NODE_DEADLINE, text=f"{answer} of {scene.in_hand}", until=scene.in_hand.until)


def _held(hold: Hold, state: RolloutState, scene: Scene) -> Wait:
    match hold:
        case Hold.APPROVAL:
            return Wait(what=Rule.APPROVAL, text="another person than the one who started it to approve it")
        case Hold.START_AT:
            return Wait(what=Rule.START_AT, text="its start", until=state.strategy.start_at)
        case Hold.NEEDS:
            return Wait(what=Rule.NEEDS, text=f"the rollouts that it needs: {', '.join(scene.needs)}")
        case Hold.SOAK:
            return Wait(what=Rule.SOAK, text=f"the end of wave {state.wave}'s soak", until=state.soak_until)
        case Hold.GATE:
            return Wait(what=Rule.GATE, text=f"a person to promote it: the gate after wave {state.wave} is closed")
        case Hold.FROZEN:
            return Wait(what=Rule.FROZEN, text=f"the fleet to be thawed, which is frozen {scene.frozen}")


def _nodes(state: RolloutState, fleet: Fleet, scene: Scene) -> Iterator[Wait]:
    yield from _in_hand(scene)
    if fleet.ready:
        yield _room(state, fleet, scene)
    if scene.offline.count:
        yield Wait(what=Rule.OFFLINE_WAIT, text=f"{scene.offline} to be online again")
    if scene.draining.count:
        yield Wait(what=Rule.DRAINING, text=f"{scene.draining} to be activated")
    if scene.behind.count:
        yield Wait(what=Rule.BEHIND, text=f"older operations on {scene.behind} to end")
    if scene.backing_off.count:
        yield Wait(
            what=Rule.RETRY_BACKOFF, text=f"the next attempt on {scene.backing_off}", until=scene.backing_off.until
        )
    if (deadline := progress_deadline(state, fleet)) is not None:
        yield Wait(what=Rule.PROGRESS_DEADLINE, text="a success, without which it is stopped", until=deadline)


def _room(state: RolloutState, fleet: Fleet, scene: Scene) -> Wait:
    """Which of the two it is that nodes which are ready are not released, or not all of them."""
    if 0 < free_slots(state, fleet) > spare_nodes(state, fleet):
        return Wait(what=Rule.MIN_HEALTHY, text=f"more than {state.strategy.kept_healthy(state.nodes)} healthy nodes")
    return Wait(
        what=Rule.MAX_PARALLEL, text=f"a free slot: {fleet.in_hand} nodes are in progress", until=scene.in_hand.until
    )


# --- One node of it ---------------------------------------------------------------------------------------------------


def explain_node(state: RolloutState, started: RolloutStarted, fleet: Fleet, scene: Scene, place: Place) -> Why:
    taken = Step(events=(), commands=(), wake_at=None) if state.phase.is_final else step(state, started, fleet)
    if place.phase.is_final:
        return _explain_end(state, taken, place)
    is_scheduled = place.phase == Phase.SCHEDULED
    waits = tuple(_turn(state, taken, fleet, scene, place) if is_scheduled else _answer(place))
    rule = waits[0].what
    where = f" in wave {place.wave}" if place.wave >= 0 else ""
    return Why(
        rule=rule,
        rule_text=text_of(rule, state),
        summary=f"{_words(place.phase)} since {in_utc(place.since)}{where}. It waits for {waits[0].text}.",
        waits_for=waits,
    )


def _explain_end(state: RolloutState, taken: Step, place: Place) -> Why:
    rule = _rule_of_node(place)
    by = in_words(place.canceled_by) if place.canceled_by else f"the rule {rule}"
    said = [f"{_words(place.phase)} at {in_utc(place.since)} by {by}."]
    if place.reason is not None and not (place.canceled_by and rule == Rule.MANUAL):
        words = WORDS[place.reason]
        said += [f"{place.reason}: {words.meaning}", sentence(place.message), words.hint]
    else:
        said.append(sentence(place.message))
    waits: tuple[Wait, ...] = ()
    if place.node in _named(taken):
        waits = (Wait(what=Rule.NEXT_STEP, text=f"another operation on {place.node}, which is about to be scheduled"),)
    elif state.phase == RolloutPhase.ROLLING_BACK and not state.restoring and place.touched:
        waits = (Wait(what=Rule.ROLLBACK, text=f"all nodes to end, before {place.node} gets back what it had"),)
    summary = " ".join(each for each in said if each)
    return Why(rule=rule, rule_text=text_of(rule, state), summary=summary, waits_for=waits)


def _rule_of_node(place: Place) -> Rule:
    if place.wave < 0:
        return Rule.SKIPPED_FROM_START
    if place.phase == Phase.CANCELED and place.reason == Reason.MISSING_DEPENDENCY:
        return Rule.NEEDS
    return Rule.NODE_ANSWER if place.reason is None else _OF_REASONS.get(place.reason, Rule.NODE_ANSWER)


def _answer(place: Place) -> Iterator[Wait]:
    does = "give it up" if place.phase == Phase.CANCELING else "answer"
    yield Wait(what=Rule.NODE_DEADLINE, text=f"{place.node} to {does}; it is {place.phase}", until=place.deadline_at)


def _turn(state: RolloutState, taken: Step, fleet: Fleet, scene: Scene, place: Place) -> Iterator[Wait]:
    """All that keeps a scheduled node from being released; at least one."""
    is_called_off = state.phase in {RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK} and not state.restoring
    if place.node in _named(taken) or is_called_off:
        yield _NEXT_STEP
        return
    found = [*_turn_of_rollout(state, fleet, scene, place), *_turn_of_node(state, fleet, place)]
    if not found:
        room = _room(state, fleet, scene)
        found = [replace(room, text="the nodes before it in the rollout's order") if taken.events else room]
    yield from found


def _turn_of_rollout(state: RolloutState, fleet: Fleet, scene: Scene, place: Place) -> Iterator[Wait]:
    if state.phase == RolloutPhase.PAUSED:
        yield Wait(what=_rule_of_end(state), text=f"a person: the rollout is paused. {state.message}".rstrip(" ."))
    elif state.restoring:
        if fleet.frozen:
            yield _held(Hold.FROZEN, state, scene)
    elif (hold := held(state, fleet)) is not None and not (hold in _AFTER_WAVE and place.wave <= state.wave):
        yield _held(hold, state, scene)
    if not state.restoring and place.wave > state.open_wave:
        under_way = f"wave {state.wave} is {state.wave_phase}" if state.wave >= 0 else "none has started"
        yield Wait(what=Rule.WAVE_TURN, text=f"the turn of wave {place.wave}; {under_way}")


_AFTER_WAVE = frozenset({Hold.SOAK, Hold.GATE})


def _turn_of_node(state: RolloutState, fleet: Fleet, place: Place) -> Iterator[Wait]:
    if place.behind:
        yield Wait(what=Rule.BEHIND, text=f"the older operation of rollout {place.behind} to end on {place.node}")
    match place.node_phase:
        case NodePhase.OFFLINE:
            rule = Rule.OFFLINE_WAIT if state.restoring or state.strategy.offline == Offline.WAIT else Rule.OFFLINE
            yield Wait(what=rule, text=f"{place.node} to be online again")
        case NodePhase.DRAINING:
            yield Wait(what=Rule.DRAINING, text=f"{place.node} to be activated")
        case NodePhase.DECOMMISSIONED:
            yield Wait(what=Rule.DECOMMISSIONED, text=f"the operation of {place.node}, which has left, to be ended")
        case NodePhase.ONLINE:
            pass
    if place.ready_at is not None and place.ready_at > fleet.now:
        yield Wait(what=Rule.RETRY_BACKOFF, text=f"the next attempt on {place.node}", until=place.ready_at)


def _named(taken: Step) -> frozenset[str]:
    """Nodes to which the step does something."""
    released = [node for each in taken.events if isinstance(each, NodesReleased | NodesRetried) for node in each.nodes]
    return frozenset(released) | {each.node for each in taken.commands if hasattr(each, "node")}


# --- Words ------------------------------------------------------------------------------------------------------------


def in_utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _words(phase: str) -> str:
    return phase.replace("_", " ").capitalize()


def listed(texts: Sequence[str]) -> str:
    """Return the texts as one sentence."""
    return sentence("; ".join(each.rstrip(".") for each in texts))


def sentence(text: str) -> str:
    return f"{text}." if text and text[-1] not in ".!?" else text
