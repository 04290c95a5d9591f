"""Starts the rollout that makes former masters the masters again, after one that has failed them over."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from eventstore import Append, Loaded, load_state
from rollout.domain.node.state import NodePhase
from rollout.domain.placement.commands import Schedule, Skip
from rollout.domain.rollout.commands import Start
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import Origin, RolloutStarted, rollout_stream
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Gate, Offline, OnFailure, Strategy
from rollout.messages import Reason, Way
from rollout.models import Node
from rollout.process.placements import placement_changes
from rollout.queries.failbacks import Failback, failbacks_of
from rollout.queries.nodes import known_generations
from rollout.queries.operations import unfinished_on

#: Namespace of the uids of failbacks: a rollout's uid makes those of its failbacks, so that one is started once.
FAILBACKS = uuid.UUID("b0c5f4a2-7d0e-4a43-9a54-9b1f6f2f9b1c")


def failback_after(started: RolloutStarted, origin: Origin) -> tuple[str, list[Append]]:
    """Return the rollout that fails back after `started`, and what starts it; nothing if no master has to get its role back.

    Shards in which something newer changes the module are left out. If one is in progress already, return it, and nothing to append.
    """
    uid, loaded = _newest_of(started.rollout)
    if loaded.state.started is not None:
        return uid, []
    found = failbacks_of(started.rollout)
    busy = unfinished_on([name for each in found for name in (each.former, each.now)], started.module_name)
    found = [each for each in found if each.former not in busy and each.now not in busy]
    if not found:
        return "", []
    changes = placement_changes(_schedules(started, uid, found))
    follower = RolloutStarted(
        rollout=uid,
        action=started.action,
        module_name=started.module_name,
        version=started.version,
        activation=started.activation,
        total=len(found),
        waves=(len(found),),
        named=True,
        strategy=_fitting(started.strategy, len(found)),
        origin=origin,
        ways=started.ways,
        failback_of=started.rollout,
    )
    first = loaded.append(ROLLOUT.decide(RolloutState(), Start(started=follower)))
    return uid, [first, *(each.with_metadata(first.leads_to) for each in changes)]


def _newest_of(uid: str) -> tuple[str, Loaded[RolloutState]]:
    """Return the uid and the state of the rollout's failback. After one that has ended there is another."""
    for number in count():
        own = uuid.uuid5(FAILBACKS, f"{uid}:{number}").hex
        loaded = load_state(rollout_stream(own), ROLLOUT)
        if not loaded.state.phase.is_final:
            break
    return own, loaded


def _schedules(started: RolloutStarted, uid: str, found: Sequence[Failback]) -> list[Schedule]:
    names = [each.now or each.former for each in found]
    generations = known_generations(names)
    phases = dict(Node.objects.filter(name__in=names).values_list("name", "phase"))
    return [
        Schedule(
            rollout=uid,
            node=name,
            module_name=started.module_name,
            version=started.version,
            action=started.action,
            activation=started.activation,
            content_sha256="",
            ordinal=ordinal,
            known_generation=generations.get(name, {}).get(started.module_name, 0),
            yields=True,  # any rollout of a person takes its place
            way=Way.RESTART,
            fails_back_to=each.former,
            skip=_skip(each, phases),
        )
        for ordinal, (name, each) in enumerate(zip(names, found, strict=True))
    ]


def _skip(failback: Failback, phases: Mapping[str, str]) -> Skip | None:
    if not failback.now:
        words = f"The master is at {failback.address}, which is no node of its shard: make {failback.former} the master by hand."
        return Reason.FAILOVER_NOT_POSSIBLE, words
    if phases.get(failback.now) == NodePhase.DRAINING:
        return Reason.NODE_DRAINING, f"{failback.now} is draining."
    return None


def _fitting(strategy: Strategy, nodes: int) -> Strategy:
    """Return the strategy for so many nodes in one wave, without what waits for a person."""
    return replace(
        strategy,
        canary=0,
        waves=(),
        gate=Gate.NONE,
        soak_seconds=0.0,
        min_healthy=min(strategy.kept_healthy(nodes), nodes - 1),
        on_failure=OnFailure.ABORT,
        offline=Offline.SKIP,
        start_at=None,
        approval=False,
    )
