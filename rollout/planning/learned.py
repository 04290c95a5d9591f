"""Adds to a plan what scratch servers have shown about its builds, and the options that nodes would lose."""

from dataclasses import replace

from rollout.messages import Action, Activation
from rollout.planning.observed import Observed
from rollout.planning.plan import LostOptions, Plan
from rollout.queries.learned import build_facts, learned_document, lost_options


def with_learned(plan: Plan, observed: Observed) -> Plan:
    """Return the plan with what is known about the builds that its nodes get, or that a removal takes away. One query."""
    request = plan.request
    loaded: dict[str, str] = {}
    for node in plan.nodes:
        rows = observed.versions(request.module_name, node.name)
        if request.action == Action.REMOVE:
            rows = [row for row in rows if row.version == request.version]
        loaded.update((node.name, row.content_sha256) for row in rows if row.observed == Activation.LOAD)
    new = {each.name: each.content_sha256 for each in plan.nodes}
    facts = build_facts({*new.values(), *loaded.values()})
    contents = set((loaded if request.action == Action.REMOVE else new).values())
    plan = replace(plan, learned=learned_document(contents, facts))
    if request.action == Action.REMOVE or request.activation != Activation.LOAD or request.adopt:
        return plan
    lost = {name: lost_options(former, new[name], facts) for name, former in loaded.items()}
    return replace(
        plan, lost_options=tuple(LostOptions(name=name, options=options) for name, options in lost.items() if options)
    )
