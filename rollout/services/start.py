"""Starts rollouts: plans a request, and appends what starts the plan."""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace

from eventstore import Append, Condition, append, head, load_state, retry_on_conflict, snapshot
from rollout.domain.conditions import PLANNING
from rollout.domain.errors import PlanChangedError
from rollout.domain.placement.commands import Schedule
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.commands import Start
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import RolloutFollowed, RolloutStarted, rollout_stream
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Strategy
from rollout.messages import Way
from rollout.planning.plan import Plan
from rollout.planning.planner import plan_of
from rollout.process.placements import caused_changes
from rollout.queries.nodes import known_generations


def start_rollout(request: RolloutRequest) -> str:
    """Start a rollout and return its uid. Every node is scheduled; nothing has been sent to any node yet.

    Raises: `RolloutError`, `artifacts_app.errors.ArtifactNotFoundError`.
    """
    return retry_on_conflict(start_unless)(request)


def start_unless(request: RolloutRequest, *conditions: Condition) -> str:
    """Start a rollout if these conditions hold too. The caller tries again after a `ConcurrencyError`.

    Raises: what `start_rollout` raises, `ConcurrencyError`.
    """
    uid = uuid.uuid4().hex
    with snapshot():
        after = head()
        plan = plan_of(request)
        if request.plan_hash and plan.hash != request.plan_hash:
            raise PlanChangedError
        appends = _appends_of(plan, uid)
    append(*appends, unless=[Condition(after=after, event_types=PLANNING), *conditions])
    return uid


def _appends_of(plan: Plan, uid: str) -> list[Append]:
    """Return what starts the plan as the rollout `uid`, and before it a rollout for each module that it needs."""
    before = [(each, uuid.uuid4().hex if each.nodes else "") for each in plan.before]
    bringing = {each.request.module_name: (*each.joined, *([own] if own else [])) for each, own in before}
    rollouts = [*((each, own) for each, own in before if own), (plan, uid)]
    generations = known_generations(plan.names if plan.request.named else None)
    # First the rollouts, then their nodes: a projection folds the events in their order.
    started = [_started(each, own, bringing) for each, own in rollouts]
    causes = [each.leads_to for each in started]
    schedules = [
        (schedule, cause)
        for (each, own), cause in zip(rollouts, causes, strict=True)
        for schedule in _schedules(each, own, generations)
    ]
    former = plan.request.retry_of
    following = [followed(former, by=uid).with_metadata(causes[-1])] if former else []
    return [*started, *following, *caused_changes(schedules)]


def _started(plan: Plan, uid: str, bringing: Mapping[str, Collection[str]]) -> Append:
    request = plan.request
    started = RolloutStarted(
        rollout=uid,
        action=request.action,
        module_name=request.module_name,
        version=request.version,
        activation=request.activation,
        total=plan.total,
        waves=plan.wave_sizes,
        named=request.named,
        strategy=request.strategy,
        origin=request.origin,
        needs=tuple(each for name in plan.needs for each in bringing.get(name, ())),
        retry_of=request.retry_of,
        purge=request.purge,
        even_if_used=request.even_if_used,
        adopt=request.adopt,
        ways=request.ways,
        may_interrupt=request.may_interrupt,
        may_discard_data=request.may_discard_data,
        failback=request.failback,
    )
    return Append(rollout_stream(uid), 0, ROLLOUT.decide(RolloutState(), Start(started=started)))


def _schedules(plan: Plan, uid: str, generations: Mapping[str, Mapping[str, int]]) -> list[Schedule]:
    """Return a command for each node. The skipped nodes come last, in no wave."""
    places = [(each.name, each.wave, each.content_sha256, each.way, None) for each in plan.nodes]
    skips = [(each.name, -1, each.content_sha256, Way.LOAD, (each.reason, each.message)) for each in plan.skipped]
    request = plan.request
    return [
        Schedule(
            rollout=uid,
            node=name,
            module_name=request.module_name,
            version=request.version,
            action=request.action,
            activation=request.activation,
            content_sha256=content_sha256,
            ordinal=ordinal,
            wave=wave,
            known_generation=generations.get(name, {}).get(request.module_name, 0),
            undoes=request.undoes,
            supersede=request.supersede,
            yields=request.yields,
            way=way,
            skip=skip,
        )
        for ordinal, (name, wave, content_sha256, way, skip) in enumerate([*places, *skips])
    ]


def followed(uid: str, *, by: str, is_rollback: bool = False, is_failback: bool = False) -> Append:
    """Return what the stream of a finished rollout gets when the rollout `by` is started to follow it."""
    event = RolloutFollowed(rollout=uid, follower=by, is_rollback=is_rollback, is_failback=is_failback)
    return load_state(rollout_stream(uid), ROLLOUT).append([event])


def without_start_conditions(strategy: Strategy) -> Strategy:
    """Return the strategy of a rollout that follows: approval and start time were met once."""
    return replace(strategy, approval=False, start_at=None)
