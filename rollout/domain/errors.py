"""What can be wrong with a request about rollouts and nodes. The status is that of our own routes. Knows no Django."""

from api.errors import ApiError
from rollout.messages import Reason

#: Seconds after which it is worth while to ask again.
_LATER = {"Retry-After": "10"}


class RolloutError(ApiError):
    """The request was refused."""

    status = 400
    code = "invalid_request"


class InvalidRolloutError(RolloutError):
    """A field of the request has a value that cannot be used."""


class UnknownNodeError(RolloutError):
    """The fleet has no node of this name."""

    code = "unknown_node"


class NoNodesError(RolloutError):
    """The fleet has no nodes. Start an agent on each server; it joins with its first heartbeat."""

    status = 409
    code = "no_nodes"


class RolloutInProgressError(RolloutError):
    """Another rollout of this module is under way on one of the nodes."""

    status = 409
    code = "rollout_in_progress"

    def __init__(self, rollout: str, node: str) -> None:
        super().__init__(
            f"Rollout {rollout} of this module is under way on {node}. Wait for its end, abort it, "
            'or send "supersede": true.'
        )
        self.rollout = rollout


class RolloutNotFoundError(RolloutError):
    """There is no rollout with this uid."""

    status = 404
    code = "rollout_not_found"


class RolloutFinalError(RolloutError):
    """The rollout has ended."""

    status = 409
    code = "rollout_final"


class WrongPhaseError(RolloutError):
    """The rollout's phase does not allow this."""

    status = 409
    code = "wrong_phase"


class NotGatedError(RolloutError):
    """The rollout waits at no gate."""

    status = 409
    code = "not_gated"


class SecondPersonError(RolloutError):
    """Another person than the one who started the rollout has to approve it."""

    status = 403
    code = "second_person_required"


class OperationFinalError(RolloutError):
    """The rollout has ended on this node."""

    status = 409
    code = "operation_final"


class NothingToRollBackError(RolloutError):
    """The rollout has changed no node, or something newer has changed them all since."""

    status = 409
    code = "nothing_to_roll_back"


class RollbackOfRollbackError(RolloutError):
    """A rollback is not rolled back. Start a rollout of the version that you want."""

    status = 409
    code = "rollback_of_rollback"


class NothingToRetryError(RolloutError):
    """No node of this rollout has failed."""

    status = 409
    code = "nothing_to_retry"


class NodeNotFoundError(RolloutError):
    """The fleet has no node of this name."""

    status = 404
    code = "node_not_found"


class NoLocalNodeError(RolloutError):
    """No node is the local one. The vendor answers 503 too where a node is no member of a cluster."""

    status = 503
    code = "no_local_node"
    headers = _LATER


class NodePhaseError(RolloutError):
    """The node's phase does not allow this."""

    status = 409
    code = "node_decommissioned"


class InvalidModulePackageError(RolloutError):
    """`POST /v1/modules`: the package cannot be read, or what its module.json says is wrong."""

    code = "invalid_module"


class ModuleThereError(RolloutError):
    """`POST /v1/modules`: another build of this module, version and platform is there already."""

    code = "module_exists"


class DependenciesNotSupportedError(RolloutError):
    """`POST /v1/modules` takes no module with dependencies. Upload it by `POST /v2/modules`."""

    code = "dependencies_not_supported"


class FleetFrozenError(RolloutError):
    """The fleet is frozen: nothing is done to any node until that is lifted."""

    status = 503
    code = "fleet_frozen"
    headers = _LATER


class NodeUnreachableError(RolloutError):
    """The node did not answer in time."""

    status = 503
    code = "node_unreachable"
    headers = _LATER


class NodeRefusedError(RolloutError):
    """The node refused. The code is the reason that it gave."""

    status = 406
    code = "node_refused"
    codes = tuple(Reason)

    def __init__(self, description: str = "", *, code: str = "") -> None:
        super().__init__(description)
        self.code = code or self.code


class NoMatchError(RolloutError):
    """The selector matches no node of the fleet. GET /v2/nodes lists them with their labels."""

    code = "no_nodes"


class PlanChangedError(RolloutError):
    """What would be done is not this plan any more. Look at a new one: POST /v2/rollouts/plan, and start that."""

    status = 409
    code = "plan_changed"


class DependencyCycleError(RolloutError):
    """Modules need each other, so that none can be first."""

    status = 409
    code = "dependency_cycle"


class MissingDependencyError(RolloutError):
    """The module needs another one, which some node does not have, and of which there is no package. Upload that first."""

    status = 409
    code = "missing_dependency"


class ModuleNeededError(RolloutError):
    """Another module needs this one."""

    status = 409
    code = "module_needed"
