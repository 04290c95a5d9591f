"""The seed's local calls: a rollout of one node, waited for. A retry of the same call joins the one under way."""

import time

from django.conf import settings
from django.http.request import split_domain_port

from api.waiting import waiting
from eventstore.follow import wait_for_growth
from eventstore.store import head
from modules_app.errors import NoSuchModuleError
from rollout import selectors, services
from rollout.errors import (
    FleetFrozenError,
    ModuleInUseError,
    NodeRefusedError,
    NodeUnreachableError,
    RolloutInProgressError,
)
from rollout.events import Origin
from rollout.messages import Action, Activation, Phase, Reason
from rollout.models import Node
from rollout.requests import AT_ONCE, RolloutRequest

#: Why an operation is skipped on a node that is as it was asked for.
NOTHING_TO_DO = frozenset({Reason.ALREADY_INSTALLED, Reason.NOT_INSTALLED})


def node_of(host: str) -> Node:
    """The node that a request to `host` means, its port aside. Raises: `NoLocalNodeError`."""
    domain, _ = split_domain_port(host)
    return selectors.local_node(domain, settings.ENVIRONMENT.node_name)


def install(node: Node, module_name: str, version: int) -> None:
    """Put the artifact on the node's disk; returns once the node has said that it is there.

    Raises: `NodeRefusedError`, `NodeUnreachableError`, `RolloutInProgressError`, `FleetFrozenError`.
    """
    _carry_out(
        RolloutRequest(
            action=Action.INSTALL,
            module_name=module_name,
            version=version,
            activation=Activation.FILES,
            nodes=(node.name,),
            strategy=AT_ONCE,
            origin=Origin.LOCAL,
        )
    )


def remove(node: Node, module_name: str, version: int) -> None:
    """Delete the module version from the node's disk; returns once the node has said that it is gone.

    Raises: `NoSuchModuleError`, `ModuleInUseError`, `NodeRefusedError`, `NodeUnreachableError`,
    `RolloutInProgressError`, `FleetFrozenError`.
    """
    loaded = selectors.is_loaded(node.name, module_name, version)
    if loaded is None:
        raise NoSuchModuleError(f"{node.name} has no artifact of {module_name} {version}.")
    if loaded:
        raise ModuleInUseError(
            f"{module_name} {version} is loaded in the server of {node.name}. A rollout with the action remove unloads it."
        )
    _carry_out(
        RolloutRequest(
            action=Action.REMOVE,
            module_name=module_name,
            version=version,
            activation=Activation.FILES,
            nodes=(node.name,),
            strategy=AT_ONCE,
            origin=Origin.LOCAL,
        )
    )


def _carry_out(request: RolloutRequest) -> None:
    if (freeze := selectors.freeze_document())["frozen"]:
        raise FleetFrozenError(f"{freeze['actor']} has frozen the fleet: {freeze['reason']}")
    with waiting():  # before anything begins: what is refused has not happened
        _start_and_wait(request)


def _start_and_wait(request: RolloutRequest) -> None:
    (name,) = request.nodes or ()
    deadline = time.monotonic() + settings.ENVIRONMENT.local_wait_seconds
    uid = _start_or_join(request, name)
    while True:
        position = head()
        operation = selectors.operation(uid, name)
        phase = Phase(operation.phase)
        if phase == Phase.SUCCEEDED or (phase == Phase.SKIPPED and operation.reason in NOTHING_TO_DO):
            return
        if phase.is_final and phase != Phase.TIMED_OUT:
            raise NodeRefusedError(operation.message or operation.reason, code=operation.reason)
        left = deadline - time.monotonic()
        if left <= 0 or phase == Phase.TIMED_OUT:
            raise NodeUnreachableError(
                f"{name} has not answered yet. Rollout {uid} goes on; send the same request again to wait for it."
            )
        wait_for_growth(position, timeout=left)


def _start_or_join(request: RolloutRequest, node: str) -> str:
    try:
        return services.start_rollout(request)
    except RolloutInProgressError as error:
        if not selectors.is_same_intent(error.rollout, node, request):
            raise
        return error.rollout
