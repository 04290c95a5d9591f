"""The vendor's local routes: start a rollout of one node, and wait for its end. A repeated call joins it."""

import time
from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port

from api.waiting import waiting
from eventstore import Condition, head, retry_on_conflict, wait_for_news
from modules_app.errors import ModuleInUseError, NoSuchModuleError
from rollout.domain.errors import NodeRefusedError, NodeUnreachableError
from rollout.domain.placement.events import placement_stream
from rollout.domain.placement.outcomes import NOTHING_TO_DO
from rollout.domain.request import AT_ONCE, RolloutRequest
from rollout.domain.rollout.events import Origin
from rollout.messages import Action, Activation, Phase
from rollout.models import Node
from rollout.queries.freeze import refuse_if_frozen
from rollout.queries.modules import is_loaded
from rollout.queries.nodes import local_node
from rollout.queries.operations import operation_row
from rollout.queries.rollouts import newest_positions
from rollout.services.start import start_rollout, start_unless
from rollout.services.start_or_join import start_or_join


def node_of(host: str) -> Node:
    """Return the node that a request to `host` means; a port in it is ignored. Raises: `NoLocalNodeError`."""
    domain, _ = split_domain_port(host)
    own = urlsplit(settings.ENVIRONMENT.public_url).hostname
    return local_node(domain, settings.ENVIRONMENT.node_name, is_control_plane=domain == own)


def install(node: Node, module_name: str, version: int) -> None:
    """Put the artifact on the node's disk. Return once the node has reported that it is there.

    Raises: `NodeRefusedError`, `NodeUnreachableError`, `RolloutInProgressError`, `FleetFrozenError`.
    """
    _carry_out(_request(Action.INSTALL, node, module_name, version))


def remove(node: Node, module_name: str, version: int) -> None:
    """Delete the module version from the node's disk. Return once the node has reported that it is deleted.

    Raises: `NoSuchModuleError`, `ModuleInUseError`, `NodeRefusedError`, `NodeUnreachableError`,
    `RolloutInProgressError`, `FleetFrozenError`.
    """

    @retry_on_conflict
    def start(request: RolloutRequest) -> str:
        untouched = Condition(after=head(), streams=[placement_stream(node.name, module_name)])
        _require_idle(node, module_name, version)
        return start_unless(request, untouched)

    _carry_out(_request(Action.REMOVE, node, module_name, version), start)


def _request(action: Action, node: Node, module_name: str, version: int) -> RolloutRequest:
    return RolloutRequest(
        action=action,
        module_name=module_name,
        version=version,
        activation=Activation.FILES,
        nodes=(node.name,),
        strategy=AT_ONCE,
        origin=Origin.VENDOR,
    )


def _require_idle(node: Node, module_name: str, version: int) -> None:
    """Raise `NoSuchModuleError` if the node lacks the module, `ModuleInUseError` if it is loaded there."""
    loaded = is_loaded(node.name, module_name, version)
    if loaded is None:
        raise NoSuchModuleError(f"{node.name} has no artifact of {module_name} {version}.")
    if loaded:
        raise ModuleInUseError(
            f"{module_name} {version} is loaded in the server of {node.name}. Start a rollout with the action remove to unload it."
        )


def _carry_out(request: RolloutRequest, start: Callable[[RolloutRequest], str] = start_rollout) -> None:
    refuse_if_frozen()
    with waiting():  # first: a call that is refused here has started nothing
        _start_and_wait(request, start)


def _start_and_wait(request: RolloutRequest, start: Callable[[RolloutRequest], str]) -> None:
    (name,) = request.nodes or ()
    deadline = time.monotonic() + settings.ENVIRONMENT.local_wait_seconds
    uid = start_or_join(request, start)
    while True:
        position = newest_positions([uid])[uid]
        operation = operation_row(uid, name)
        phase = Phase(operation.phase)
        if phase == Phase.SUCCEEDED or (phase == Phase.SKIPPED and operation.reason in NOTHING_TO_DO):
            return
        if phase.is_final and phase != Phase.TIMED_OUT:
            raise NodeRefusedError(operation.message or operation.reason, code=operation.reason)
        left = deadline - time.monotonic()
        if left <= 0 or phase == Phase.TIMED_OUT:
            raise NodeUnreachableError(
                f"{name} has not answered yet. Rollout {uid} continues; send the same request again to wait for it."
            )
        wait_for_news(uid, after=position, newest=newest_positions, timeout=left)
