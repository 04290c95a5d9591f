"""Commands of one node: what its agent reports, and what operators, timeouts and the reconciler ask for.

Commands of operators raise `NodeNotFoundError` for an unknown node, `NodePhaseError` for a decommissioned one and
`NodePendingError` for a pending one. Commands about its identity raise `NodeIdentityError` if it has none that is valid.
"""

from dataclasses import dataclass

from rollout.domain.node.health import Degradation
from rollout.domain.node.pace import Change
from rollout.messages import ConfigurationChange, Inventory, NodeProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollNode:
    """Give the node an identity. `is_silent`: it was declared offline and is still not heard, or it was never heard.

    Do nothing if the node has this identity, unless this accepts it. Raises: `NodeExistsError` if another agent speaks for the node.
    """

    node: str
    token: str
    public_key: str
    broker_password_sha256: str
    labels: dict[str, str]
    accepted: bool
    is_silent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptNode:
    """Accept a pending node. Do nothing if it is accepted.

    `key`: the id of the key that the person has compared. Raises: `NodeKeyError` if the node has another key.
    """

    node: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRekey:
    """Ask the node to replace its key. Do nothing if it was asked."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddKey:
    """Add a key beside the one in use. Do nothing if the node has it. Another key that was never used is dropped."""

    node: str
    public_key: str
    broker_password_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireOtherKeys:
    """End the other keys of the node: it has used `public_key`."""

    node: str
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeNode:
    """Refuse all messages of the node until it joins again. Do nothing if they are refused."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDuplicate:
    """Record if two agents of the node are heard at the same time."""

    node: str
    is_duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordHeartbeat:
    """Record what a heartbeat changes: the node joins or comes back, is degraded or recovers, or has another profile or
    other modules.

    A node without an identity does not join.

    `hello`: the agent has just started. Only such a heartbeat makes a decommissioned node join again. `changes`: the kinds
    of changes that may be recorded now for a node that is known (see `pace`). `lost`: modules, by name and version, whose
    inventory may be recorded even if `changes` does not contain the inventory. `same_process`: the server has not
    restarted since the heartbeat before, so a module that it has no longer loaded was unloaded. `listed`: the modules that it has
    loaded, by name and version, also those whose files were deleted. `configuration_changes`: the
    newest ones that the agent has noted, in order; those that are recorded lead to no event.
    """

    node: str
    hello: bool
    profile: NodeProfile
    inventory: Inventory
    changes: frozenset[Change] = frozenset(Change)
    lost: frozenset[tuple[str, int]] = frozenset()
    same_process: bool = False
    listed: frozenset[tuple[str, int]] = frozenset()
    degradation: Degradation | None = None
    configuration_changes: tuple[ConfigurationChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordContact:
    """Record that the node is back, because it sent a message other than a heartbeat."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordInventory:
    """Record the node's modules, as a report contains them. Ignore an inventory that is older than the recorded one."""

    node: str
    inventory: Inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclareOffline:
    """Record that the node is offline, because it was silent for too long."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelNode:
    """Replace all labels that an operator has set by `labels`."""

    node: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAddress:
    """Set the canonical address by which other servers know the node's server; remove it if it is empty."""

    node: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainNode:
    """Release no operation to the node until it is activated."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivateNode:
    """End the drain of the node."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecommissionNode:
    """Remove the node from the fleet, until its agent is restarted. Do nothing if the node is decommissioned."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetNode:
    """Drop what the node reported of itself. It is offline until its next heartbeat."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDrift:
    """Record that a module differs from its desired state. `desired` and `observed`: `load`, `files` or `absent`.

    `content_sha256`: the digest of the files on the node. `reason`: as in the event. Do nothing if the same drift is
    recorded.
    """

    node: str
    module_name: str
    version: int
    desired: str
    observed: str
    content_sha256: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndDrift:
    """Record that a module has no drift any more. Do nothing if no drift is recorded."""

    node: str
    module_name: str
    version: int


NodeCommand = (
    EnrollNode
    | AcceptNode
    | RequestRekey
    | AddKey
    | RetireOtherKeys
    | RevokeNode
    | RecordDuplicate
    | RecordHeartbeat
    | RecordContact
    | RecordInventory
    | DeclareOffline
    | LabelNode
    | SetAddress
    | DrainNode
    | ActivateNode
    | DecommissionNode
    | ForgetNode
    | RecordDrift
    | EndDrift
)
