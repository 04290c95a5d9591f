"""Errors of requests about rollouts and nodes."""

from api.errors import ApiError, Kind
from rollout.messages import Reason

#: When to repeat a request that needs a node, seconds.
_LATER_SECONDS = 10


class RolloutError(ApiError):
    """The request was refused."""

    kind = Kind.INVALID
    code = "invalid_request"


class InvalidRolloutError(RolloutError):
    """A field of the request has a value that cannot be used."""


class UnknownNodeError(RolloutError):
    """The fleet has no node of this name."""

    code = "unknown_node"


class NoNodesError(RolloutError):
    """The fleet has no nodes. Add one with `modfleet nodes add`."""

    kind = Kind.CONFLICT
    code = "no_nodes"


class RolloutInProgressError(RolloutError):
    """Another rollout of this module is under way on one of the nodes."""

    kind = Kind.CONFLICT
    code = "rollout_in_progress"

    def __init__(self, rollout: str, node: str) -> None:
        super().__init__(
            f"Rollout {rollout} of this module is under way on {node}. Wait for its end, abort it, "
            'or send "supersede": true.'
        )
        self.rollout = rollout


class UnmanagedReplicaError(RolloutError):
    """A server has a replica that is no node of the fleet, so the replica would not get the module and lose writes."""

    kind = Kind.CONFLICT
    code = "unmanaged_replica"


class RolloutNotFoundError(RolloutError):
    """There is no rollout with this uid."""

    kind = Kind.NOT_FOUND
    code = "rollout_not_found"


class RolloutFinalError(RolloutError):
    """The rollout has ended."""

    kind = Kind.CONFLICT
    code = "rollout_final"


class WrongPhaseError(RolloutError):
    """The rollout's phase does not allow this."""

    kind = Kind.CONFLICT
    code = "wrong_phase"


class NotGatedError(RolloutError):
    """The rollout waits at no gate."""

    kind = Kind.CONFLICT
    code = "not_gated"


class SecondPersonError(RolloutError):
    """Another person than the one who started the rollout has to approve it."""

    kind = Kind.FORBIDDEN
    code = "second_person_required"


class OperationFinalError(RolloutError):
    """The rollout has ended on this node."""

    kind = Kind.CONFLICT
    code = "operation_final"


class NothingToRollBackError(RolloutError):
    """The rollout has changed no node, or something newer has changed them all since."""

    kind = Kind.CONFLICT
    code = "nothing_to_roll_back"


class RollbackOfRollbackError(RolloutError):
    """A rollback is not rolled back. Start a rollout of the version that you want."""

    kind = Kind.CONFLICT
    code = "rollback_of_rollback"


class RollbackOfAdoptionError(RolloutError):
    """An adoption is not rolled back: that would unload the module. To unload it, start a rollout that removes it."""

    kind = Kind.CONFLICT
    code = "rollback_of_adoption"


class OneWayError(RolloutError):
    """The former version cannot read what the new one has written, or that is not known, so nothing is rolled back."""

    kind = Kind.CONFLICT
    code = "one_way"


class NothingToFailBackError(RolloutError):
    """The rollout has failed over no master, or something newer changes its shards."""

    kind = Kind.CONFLICT
    code = "nothing_to_fail_back"


class NothingToRetryError(RolloutError):
    """No node of this rollout has failed."""

    kind = Kind.CONFLICT
    code = "nothing_to_retry"


class NodeNotFoundError(RolloutError):
    """The fleet has no node of this name."""

    kind = Kind.NOT_FOUND
    code = "node_not_found"


class NoLocalNodeError(RolloutError):
    """No node is the local one. The vendor answers 503 too where a node is no member of a cluster."""

    kind = Kind.UNAVAILABLE
    code = "no_local_node"
    retry_after_seconds = _LATER_SECONDS


class NodePhaseError(RolloutError):
    """The node's phase does not allow this."""

    kind = Kind.CONFLICT
    code = "node_decommissioned"


class NodePendingError(RolloutError):
    """The node is not part of the fleet yet."""

    kind = Kind.CONFLICT
    code = "node_pending"


class NodeExistsError(RolloutError):
    """Another agent speaks for the node of this name."""

    kind = Kind.CONFLICT
    code = "node_exists"


class NodeIdentityError(RolloutError):
    """The node has no valid identity: it was revoked, is pending, or never joined."""

    kind = Kind.CONFLICT
    code = "node_not_signed"


class InvalidAddressError(RolloutError):
    """The address of a server cannot be used."""

    code = "invalid_address"


class IgnoredReplicaNotFoundError(RolloutError):
    """No replica with this address is ignored."""

    kind = Kind.NOT_FOUND
    code = "ignored_replica_not_found"


class NodeKeyError(RolloutError):
    """The node has another key. Compare its key again, and accept that one."""

    kind = Kind.CONFLICT
    code = "node_key_changed"


class NodeRekeyError(RolloutError):
    """No new key was requested of this node, or it has answered too often. Request one: `modfleet nodes rekey`."""

    kind = Kind.CONFLICT
    code = "rekey_not_requested"


class InvalidTokenError(RolloutError):
    """This join token cannot be used for this node. Create a new one: `modfleet nodes add`."""

    kind = Kind.FORBIDDEN
    code = "invalid_token"


class InvalidJoinTokenError(RolloutError):
    """The join token has a value that cannot be used."""


class JoinTokenNotFoundError(RolloutError):
    """There is no join token with this id."""

    kind = Kind.NOT_FOUND
    code = "join_token_not_found"


class UntrustedNodeError(RolloutError):
    """The message is not signed with a valid key of this node."""

    kind = Kind.FORBIDDEN
    code = "untrusted_node"


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

    kind = Kind.UNAVAILABLE
    code = "fleet_frozen"
    retry_after_seconds = _LATER_SECONDS


class NodeUnreachableError(RolloutError):
    """The node did not answer in time."""

    kind = Kind.UNAVAILABLE
    code = "node_unreachable"
    retry_after_seconds = _LATER_SECONDS


class NodeRefusedError(RolloutError):
    """The node refused. The code is the reason that it gave."""

    kind = Kind.NOT_ACCEPTABLE
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

    kind = Kind.CONFLICT
    code = "plan_changed"


class DependencyCycleError(RolloutError):
    """Modules need each other, so that none can be first."""

    kind = Kind.CONFLICT
    code = "dependency_cycle"


class MissingDependencyError(RolloutError):
    """The module needs another one, which some node does not have, and of which there is no package. Upload that first."""

    kind = Kind.CONFLICT
    code = "missing_dependency"


class CommandsInUseError(RolloutError):
    """The module's commands were called in the last 10 minutes."""

    kind = Kind.CONFLICT
    code = "in_use"


class ModuleNeededError(RolloutError):
    """Another module needs this one."""

    kind = Kind.CONFLICT
    code = "module_needed"
