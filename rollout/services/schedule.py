"""Turns a plan into what is appended to start it."""

import uuid
from collections.abc import Collection, Mapping

from eventstore import Append, load_state
from rollout.domain.placement.commands import Schedule
from rollout.domain.rollout.commands import Start
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import RolloutFollowed, RolloutStarted, rollout_stream
from rollout.domain.rollout.state import RolloutState
from rollout.planning.plan import Plan
from rollout.process.placements import caused_changes
from rollout.queries.nodes import known_generations


def appends_of(plan: Plan, uid: str) -> list[Append]:
    """What starts the plan as the rollout `uid`, and before it a rollout for each module that it needs."""
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


def followed(uid: str, *, by: str, is_rollback: bool = False) -> Append:
    """What the stream of a rollout that has ended gets when the rollout `by` is started to follow it."""
    event = RolloutFollowed(rollout=uid, follower=by, is_rollback=is_rollback)
    return load_state(rollout_stream(uid), ROLLOUT).append([event])


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
    )
    return Append(rollout_stream(uid), 0, ROLLOUT.decide(RolloutState(), Start(started=started)))


def _schedules(plan: Plan, uid: str, generations: Mapping[str, Mapping[str, int]]) -> list[Schedule]:
    """The skipped ones come last, in no wave."""
    places = [(each.name, each.wave, each.content_sha256, None) for each in plan.nodes]
    skips = [(each.name, -1, each.content_sha256, (each.reason, each.message)) for each in plan.skipped]
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
            skip=skip,
        )
        for ordinal, (name, wave, content_sha256, skip) in enumerate([*places, *skips])
    ]
