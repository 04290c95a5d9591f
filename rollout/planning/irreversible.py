"""What a plan does that no rollback undoes, in words."""

from collections.abc import Collection, Iterator, Sequence

from rollout.domain.words import some_of
from rollout.messages import Action, Activation, Phase, WayBackResult
from rollout.models import Operation
from rollout.planning.observed import Observed
from rollout.planning.plan import Plan, PlannedNode


def irreversible(plan: Plan, observed: Observed) -> tuple[str, ...]:
    """Return what the plan does that no rollback undoes, one sentence each. At most two queries, none without a restart."""
    restarted = [each for each in plan.nodes if each.restart]
    return (*_restarts(plan, restarted), *_ways_back(plan, _replaced_versions(plan, restarted, observed)))


def _restarts(plan: Plan, restarted: Sequence[PlannedNode]) -> Iterator[str]:
    masters = [each.name for each in restarted if each.restart and each.restart.failover]
    if alone := [each.name for each in restarted if each.name not in masters and each.role != "replica"]:
        yield f"The clients of {some_of(alone)} are disconnected."
    if plan.request.may_discard_data and restarted:
        yield (
            "Data that is neither on a disk nor on a replica is lost. A node that goes back from a one-way change loses all that was "
            "written since, unless its master has it."
        )
    if masters:
        yield f"A replica becomes the master before the restart of {some_of(masters)}, and stays the master after a rollback."


def _replaced_versions(plan: Plan, restarted: Sequence[PlannedNode], observed: Observed) -> Collection[int]:
    """Return the versions of the module that a restart replaces by another one."""
    request = plan.request
    if request.action != Action.INSTALL:
        return ()
    rows = (row for node in restarted for row in observed.versions(request.module_name, node.name))
    return sorted({row.version for row in rows if row.observed == Activation.LOAD} - {request.version})


def _ways_back(plan: Plan, formers: Collection[int]) -> Iterator[str]:
    """Yield the versions that cannot read what the new one writes, by what nodes have shown in earlier rollouts."""
    version = plan.request.version
    shown = Operation.attempts.filter(
        module_name=plan.request.module_name,
        version=version,
        phase=Phase.SUCCEEDED,
        way_back__former_version__in=formers,
    ).values_list("way_back__former_version", "node")
    closed = dict(shown.filter(way_back__result=WayBackResult.CLOSED)) if formers else {}
    is_open = dict(shown.filter(way_back__result=WayBackResult.OPEN)) if formers else {}
    stops = "the rollout stops after the first node until a person promotes it, and is not rolled back."
    for former in formers:
        if former in closed:
            yield f"Version {former} cannot read what version {version} has written on {closed[former]}: {stops}"
        elif former not in is_open:
            yield f"The first node tries if version {former} can read what version {version} writes. If not, or if that is not known, {stops}"
