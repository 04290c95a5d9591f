"""The rules by which a rollout waits, stops and ends, each with its sentence. The sentences are in `docs/reference/why.md`
too."""

from collections.abc import Mapping
from enum import StrEnum

from rollout.domain.rollout.state import RolloutState
from rollout.domain.rollout.turns import Block
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
    ONE_WAY = "one_way"
    WAY_BACK = "way_back"
    MAX_PARALLEL = "max_parallel"
    MIN_HEALTHY = "min_healthy"
    DOMAIN = "domain"
    SHARD_ORDER = "shard_order"
    SHARD_BUSY = "shard_busy"
    HOST_BUSY = "host_busy"
    HOST_WORKS = "host_works"
    SYNC_LOOP = "sync_loop"
    WINDOW = "window"
    HEARTBEAT = "heartbeat"
    SERVER = "server"
    NODE_DEADLINE = "node_deadline"
    NODE_ANSWER = "node_answer"
    OFFLINE_WAIT = "offline_wait"
    OFFLINE = "offline"
    DEGRADED = "degraded"
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
    Rule.ONE_WAY: "A former version that cannot read what the new one writes, or of which that is not known, rules out a rollback: "
    "then a person has to promote the rollout after the node that has shown it.",
    Rule.WAY_BACK: "If a restart replaces a version, the first node changes alone, and tries if the former version can read what the new one writes.",
    Rule.MAX_PARALLEL: (
        "At most {parallel} of {nodes} nodes are in progress at once: max_parallel is {strategy.max_parallel}."
    ),
    Rule.MIN_HEALTHY: (
        "At least {kept} of {nodes} nodes stay online, without an operation in progress and without a failure: "
        "min_healthy is {strategy.min_healthy}."
    ),
    Rule.DOMAIN: "Nodes in progress, of any rollout, have one value at a time of each label that one of these rollouts names as its domain.",
    Rule.SHARD_ORDER: "A module is loaded on the replicas before their master, and leaves the master first.",
    Rule.SHARD_BUSY: "Two copies of a shard are never changed at the same time.",
    Rule.HOST_BUSY: "Two nodes on one host are never changed at the same time.",
    Rule.HOST_WORKS: "At most one server of a host saves, loads or synchronizes its data at a time. A node waits at most "
    "ready_deadline_seconds, {strategy.ready_deadline_seconds:g} s. Then it is skipped.",
    Rule.SYNC_LOOP: "While a replica has begun two full synchronizations within ten minutes, nothing more changes in its shard. A "
    "node waits at most ready_deadline_seconds, {strategy.ready_deadline_seconds:g} s. Then it is skipped.",
    Rule.WINDOW: "Servers are restarted only in the window {strategy.window}.",
    Rule.HEARTBEAT: "A server is changed only while its newest heartbeat is recent, and gets a module only while those of its replicas are.",
    Rule.SERVER: "A server is changed only while it is ready, and no server outside of the fleet would lose data by that. A "
    "node waits at most ready_deadline_seconds, {strategy.ready_deadline_seconds:g} s. Then it is skipped.",
    Rule.NODE_DEADLINE: "A node that was released has to answer within node_deadline_seconds, "
    "{strategy.node_deadline_seconds:g} s. Otherwise it times out.",
    Rule.NODE_ANSWER: "The node's own answer decides how its operation ends.",
    Rule.OFFLINE_WAIT: "An offline node gets its turn when it is back online.",
    Rule.OFFLINE: "The rollout does not wait for a node that is offline when it is its turn: offline is {strategy.offline}.",
    Rule.DEGRADED: "A degraded node gets no new operation until its server can be used again. If its server would not start again, an "
    "operation that repairs the start is carried out.",
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

RULE_OF_BLOCK: Mapping[Block, Rule] = {
    Block.HEARTBEAT: Rule.HEARTBEAT,
    Block.SERVER: Rule.SERVER,
    Block.SHARD_ORDER: Rule.SHARD_ORDER,
    Block.SHARD_BUSY: Rule.SHARD_BUSY,
    Block.HOST_BUSY: Rule.HOST_BUSY,
    Block.DOMAIN_BUSY: Rule.DOMAIN,
    Block.WINDOW: Rule.WINDOW,
    Block.RESTART: Rule.SERVER,
    Block.WAY_BACK: Rule.WAY_BACK,
    Block.HOST_WORKS: Rule.HOST_WORKS,
    Block.SYNC_LOOP: Rule.SYNC_LOOP,
}
RULE_OF_REASON: Mapping[Reason, Rule] = {
    Reason.UNMANAGED_REPLICA: Rule.SERVER,
    Reason.UNMANAGED_MASTER: Rule.SERVER,
    Reason.SERVER_NOT_READY: Rule.SERVER,
    Reason.BACKUP_RUNNING: Rule.SERVER,
    Reason.SAVE_UNSAFE: Rule.SERVER,
    Reason.SYNC_LOOP: Rule.SYNC_LOOP,
    Reason.REPLICA_LACKS_MODULE: Rule.SHARD_ORDER,
    Reason.REPLICA_SILENT: Rule.HEARTBEAT,
    Reason.MASTER_HAS_MODULE: Rule.SHARD_ORDER,
    Reason.MANUAL: Rule.MANUAL,
    Reason.ERROR_THRESHOLD: Rule.MAX_FAILURES,
    Reason.PROGRESS_DEADLINE: Rule.PROGRESS_DEADLINE,
    Reason.NEWER_ROLLOUT: Rule.NEWER_ROLLOUT,
    Reason.ONE_WAY: Rule.ONE_WAY,
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
