"""The rules by which a rollout waits, stops and ends, each with its sentence. The sentences are in `docs/reference/why.md`
too."""

from collections.abc import Mapping
from enum import StrEnum

from rollout.domain.rollout.state import RolloutState
from rollout.messages import Reason


class Rule(StrEnum):
    """Stable names of the rules, meant for machines."""

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
    Rule.APPROVAL: "Another person than the one who started the rollout has to approve it: approval is true.",
    Rule.START_AT: "Nothing is released before start_at: {strategy.start_at}.",
    Rule.NEEDS: "The rollouts of the modules that this one needs have to succeed first.",
    Rule.FROZEN: "A frozen fleet releases nothing anywhere until it is thawed.",
    Rule.WAVE_TURN: "Waves come one after the other: one starts when the one before it has passed.",
    Rule.SOAK: "After each wave health is watched for soak_seconds: {strategy.soak_seconds:g} s.",
    Rule.GATE: "After each wave but the last a person has to promote: gate is {strategy.gate}.",
    Rule.MAX_PARALLEL: (
        "At most {parallel} of {nodes} nodes are in hand at once: max_parallel is {strategy.max_parallel}."
    ),
    Rule.MIN_HEALTHY: (
        "At least {kept} of {nodes} nodes stay online, untouched and without a failure: "
        "min_healthy is {strategy.min_healthy}."
    ),
    Rule.NODE_DEADLINE: "A node that was released answers within node_deadline_seconds, "
    "{strategy.node_deadline_seconds:g} s, or has timed out.",
    Rule.NODE_ANSWER: "What the node itself answers is how it ends.",
    Rule.OFFLINE_WAIT: "A node that is offline gets its turn when it is back.",
    Rule.OFFLINE: "A node that is offline when it is its turn is not waited for: offline is {strategy.offline}.",
    Rule.DRAINING: "A draining node gets nothing new until it is activated.",
    Rule.BEHIND: "A node has one operation of a module in hand at a time: a newer one waits until the older has ended.",
    Rule.RETRY_BACKOFF: "A node that failed is tried again at most {strategy.retries.limit} times, after a wait that "
    "doubles from {strategy.retries.backoff_seconds:g} s on.",
    Rule.SKIPPED_FROM_START: "A node at which nothing can be done is skipped from the start, and counts in no wave.",
    Rule.DECOMMISSIONED: "A node that has left the fleet is not waited for.",
    Rule.MAX_FAILURES: "The rollout stops when more nodes have failed than max_failures ({strategy.max_failures}) "
    "accepts, in one wave or in all; on_failure is {strategy.on_failure}.",
    Rule.PROGRESS_DEADLINE: "No success for progress_deadline_seconds, {strategy.progress_deadline_seconds:g} s, while a "
    "wave is running stops the rollout; on_failure is {strategy.on_failure}.",
    Rule.NEWER_ROLLOUT: "A newer rollout of the module takes over what an older one has not started.",
    Rule.MANUAL: "A person asked for it.",
    Rule.ROLLBACK: "Once no node has it in hand any more, each node that it has changed gets back what it had before, unless "
    "something newer has changed it since, or is about to.",
    Rule.OUTCOME: "A rollout ends when all its nodes have ended: succeeded, if all succeeded or were skipped that have not "
    "left the fleet and that no person has canceled; aborted, if there are no such nodes; completed_with_failures, if some "
    "of them did; failed, if none did.",
    Rule.NEXT_STEP: "Nothing keeps it from going on: its next step is about to be taken.",
}

RULE_OF_REASON: Mapping[Reason, Rule] = {
    Reason.MANUAL: Rule.MANUAL,
    Reason.ERROR_THRESHOLD: Rule.MAX_FAILURES,
    Reason.PROGRESS_DEADLINE: Rule.PROGRESS_DEADLINE,
    Reason.NEWER_ROLLOUT: Rule.NEWER_ROLLOUT,
    Reason.NODE_DEADLINE: Rule.NODE_DEADLINE,
    Reason.NODE_UNREACHABLE: Rule.OFFLINE,
    Reason.NODE_DECOMMISSIONED: Rule.DECOMMISSIONED,
}


def text_of(rule: Rule, state: RolloutState) -> str:
    """Return the rule's sentence with the numbers of this rollout."""
    strategy, nodes = state.strategy, state.nodes
    return RULES[rule].format(
        strategy=strategy, nodes=nodes, parallel=strategy.parallel(nodes), kept=strategy.kept_healthy(nodes)
    )


def rule_of(reason: Reason) -> Rule:
    """Return the rule by which a rollout is stopped with this reason."""
    return Rule.NEEDS if reason == Reason.MISSING_DEPENDENCY else RULE_OF_REASON.get(reason, Rule.OUTCOME)


def rule_of_end(state: RolloutState) -> Rule:
    """Return the rule by which the rollout was stopped or has ended."""
    if state.rejected:
        return Rule.APPROVAL
    return Rule.OUTCOME if state.reason is None else rule_of(state.reason)
