"""Nodes of a rollout that succeeded, and count as failures since."""

from django.db.models import Exists, OuterRef, Q

from rollout.domain.node.health import DOCTOR_FAILED, NOT_EXAMINED, WOULD_NOT_START
from rollout.domain.node.state import NodePhase
from rollout.domain.words import sentence, with_cause
from rollout.messages import Action, Phase
from rollout.models import Node, NodeFacts, NodeModule, Operation, Rollout
from rollout.queries.harm import HEARD_SINCE, harmed_nodes
from rollout.queries.node_documents import drift_reason

_DEGRADED = Q(phase=NodePhase.DEGRADED) & ~Q(degraded_reason__in=[DOCTOR_FAILED, NOT_EXAMINED])
#: Matches nodes whose server answers again. They stay degraded until the doctor has examined them.
_ANSWERS = ~Q(degraded_reason=WOULD_NOT_START) & Exists(
    NodeFacts.objects.filter(node=OuterRef("name"), server__problem="")
)


def lost_nodes(row: Rollout) -> dict[str, tuple[int, str]]:
    """Return the wave of each node that has succeeded, and is offline, has no usable server, or has drifted since; and that
    state, as a sentence. After a soak has begun, also those whose server was harmed. In the rollout's order.

    A failed check of the doctor is no sign that the module has harmed the node, nor is what the node said before it succeeded.
    """
    if not row.succeeded:
        return {}
    states = harmed_nodes(row)
    if row.action == Action.INSTALL:
        drifted = NodeModule.objects.filter(module_name=row.module_name, version=row.version, drifted_at__isnull=False)
        states |= {each.node: _drifted_in_words(each) for each in drifted}
    unusable = Node.objects.filter(Q(phase=NodePhase.OFFLINE) | (_DEGRADED & ~_ANSWERS))
    states |= {
        name: _unusable_in_words(phase, reason, message)
        for name, phase, reason, message in unusable.values_list("name", "phase", "degraded_reason", "degraded_message")
    }
    if not states:
        return {}
    rows = Operation.objects.filter(rollout=row.uid, node__in=list(states), phase=Phase.SUCCEEDED, wave__gte=0)
    rows = rows.filter(~Q(node__in=Node.objects.filter(_DEGRADED).values("name")) | HEARD_SINCE)
    return {node: (wave, states[node]) for node, wave in rows.order_by("wave", "ordinal").values_list("node", "wave")}


def _drifted_in_words(module: NodeModule) -> str:
    what = f"Its server no longer has {module.module_name} {module.version} as the rollout installed it"
    return sentence(with_cause(what, drift_reason(module) or "", ""))


def _unusable_in_words(phase: str, reason: str, message: str) -> str:
    if phase == NodePhase.OFFLINE:
        return "It is offline: its agent does not report."
    return sentence(with_cause("Its server cannot be used", reason, message))
