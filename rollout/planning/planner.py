"""Turns a request into a plan. Reads; writes nothing."""

from collections.abc import Iterable
from dataclasses import replace

from accounts.selectors import compatible_redis_version_is_enforced
from eventstore import snapshot
from rollout.domain.errors import RolloutInProgressError
from rollout.domain.request import RolloutRequest
from rollout.messages import Action, Activation
from rollout.planning.adoption import skips_for_adoption
from rollout.planning.bundled import skips_for_bundled_modules
from rollout.planning.catalogue import ModuleVersion, version_to_install
from rollout.planning.conflicts import skips_for_taken_commands
from rollout.planning.dependencies import Dependencies, dependencies_of
from rollout.planning.dependents import refuse_if_needed
from rollout.planning.irreversible import irreversible
from rollout.planning.learned import with_learned
from rollout.planning.nodes import chosen_nodes, skips_of, warnings_of
from rollout.planning.observed import Observed
from rollout.planning.plan import Plan, PlanWarning
from rollout.planning.restarts import restarts_of
from rollout.planning.shards import ShardOrder, ignored_replicas_of
from rollout.planning.use import refuse_if_used
from rollout.planning.waves import plan_waves


@snapshot()
def plan_of(request: RolloutRequest) -> Plan:
    """Return what the request would do to the fleet as it is now. Takes a constant number of queries for each module
    that the plan involves.

    Raises: `RolloutError`, `artifacts_app.errors.ArtifactNotFoundError`.
    """
    chosen = chosen_nodes(request)
    observed = Observed([node.name for node in chosen] if request.named else None, yields=request.yields)
    module = _module_of(request)
    skips = skips_for_bundled_modules(request.module_name, chosen) | skips_of(request, module, chosen)
    warnings = warnings_of(module, chosen)
    if warnings and compatible_redis_version_is_enforced():
        skips = warnings | skips
    included = [node for node in chosen if node.name not in skips]
    dependencies = Dependencies()
    if request.action == Action.REMOVE:
        refuse_if_needed(request.module_name, request.version, included, observed)
        if not request.even_if_used:
            refuse_if_used(request.module_name, request.version, included, observed)
    elif request.adopt:
        skips |= skips_for_adoption(module, included)
        included = [node for node in included if node.name not in skips]
    elif request.activation == Activation.LOAD:
        skips |= skips_for_taken_commands(module, included, observed)
        included = [node for node in included if node.name not in skips]
        dependencies = dependencies_of(request, module, included, observed)
        skips |= dependencies.skips
        included = [node for node in included if node.name not in skips]
    restarts = restarts_of(request, module, included, observed)
    skips |= restarts.skips
    included = [node for node in included if node.name not in skips]
    skips |= ShardOrder(request, included, observed.shards, restarts.planned).skips()
    plan = plan_waves(request, module, chosen, skips, observed, restarts.planned)
    plan = replace(
        plan,
        needs=dependencies.needs,
        before=dependencies.before,
        warnings=tuple(
            PlanWarning(name=name, reason=reason, message=message)
            for name, (reason, message) in warnings.items()
            if name not in skips
        )
        + ignored_replicas_of(request, [node for node in included if node.name not in skips], observed.shards),
    )
    plan = with_learned(plan, observed)
    plan = replace(plan, irreversible=irreversible(plan, observed))
    if not request.supersede:
        _refuse_overlap((*plan.before, plan), observed)
    return plan


def _module_of(request: RolloutRequest) -> ModuleVersion:
    """A removal needs no build. Raises: `ArtifactNotFoundError`."""
    if request.action == Action.INSTALL:
        return version_to_install(request.module_name, request.version)
    return ModuleVersion(module_name=request.module_name, version=request.version, builds={})


def _refuse_overlap(plans: Iterable[Plan], observed: Observed) -> None:
    """Refuse a plan that overlaps a rollout in progress. The placements refuse it too, but only when the rollout starts."""
    for plan in plans:
        for name in plan.names:
            if other := observed.blocking(plan.request.module_name, name):
                raise RolloutInProgressError(other.rollout, name)
