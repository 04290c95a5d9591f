"""`/v2/nodes`."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from api.pagination import Listing, page_of, paginate
from api.refusals import refuses
from rollout.api.filters import AttemptFilters, NodeFilters
from rollout.api.serializers.nodes import AcceptSerializer, NodeChangesSerializer, NodeDetailSerializer, NodeSerializer
from rollout.api.serializers.rollouts import AttemptSerializer
from rollout.api.views.documents import AS_OF, as_of
from rollout.domain.errors import (
    InvalidAddressError,
    NodeIdentityError,
    NodeKeyError,
    NodeNotFoundError,
    NodePendingError,
    NodePhaseError,
)
from rollout.queries.as_of import node_as_of
from rollout.queries.node_documents import node_detail, node_documents
from rollout.queries.nodes import listed_nodes
from rollout.queries.operations import attempt_document, attempts_on
from rollout.services.nodes import (
    accept_node,
    activate_node,
    decommission_node,
    drain_node,
    forget_node,
    label_node,
    request_rekey,
    revoke_node,
    set_address,
)

NODES = Listing(
    orders={
        "name": ("name",),
        "phase": ("phase", "name"),
        "platform": ("platform", "name"),
        "server_version": ("server_version", "name"),
        "joined_at": ("joined_position",),
    },
    default="name",
    filters=NodeFilters,
)
ATTEMPTS = Listing(orders={"scheduled_at": ("scheduled_position",)}, default="-scheduled_at", filters=AttemptFilters)


class NodeViewSet(ViewSet):
    permissions = {
        "GET": Permission.VIEW_ALL_NODES_INFO,
        "PATCH": Permission.UPDATE_NODE,
        "POST": Permission.UPDATE_NODE,
    }

    @extend_schema(parameters=NODES.parameters, responses=page_of(NodeSerializer))
    def list(self, request: Request) -> Response:
        """List nodes by name, each with its modules: the desired and the observed state."""
        return paginate(request, listed_nodes(), NODES, serialize=node_documents)

    @extend_schema(responses=NodeDetailSerializer, parameters=[AS_OF])
    @refuses(NodeNotFoundError)
    def retrieve(self, request: Request, name: str) -> Response:
        """Return one node. With `as_of`, `last_seen` and the place in its shard are null, because they are not in the log."""
        former = as_of(request)
        return _node(name) if former is None else Response(node_as_of(name, former))

    @extend_schema(
        operation_id="v2_nodes_operations_list", parameters=ATTEMPTS.parameters, responses=page_of(AttemptSerializer)
    )
    @refuses(NodeNotFoundError)
    def operations(self, request: Request, name: str) -> Response:
        """List all operations on the node, newest first. Each attempt and each undo is an entry."""
        return paginate(
            request,
            attempts_on(name),
            ATTEMPTS,
            serialize=lambda rows: [attempt_document(row) for row in rows],
        )

    @extend_schema(request=NodeChangesSerializer, responses=NodeDetailSerializer)
    @refuses(NodeNotFoundError, NodePhaseError, InvalidAddressError)
    def partial_update(self, request: Request, name: str) -> Response:
        """Replace the labels that operators have set on the node, or set the address by which other servers know its server."""
        serializer = NodeChangesSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        changes = serializer.validated_data
        if "address" in changes:
            set_address(name, changes["address"])
        if "labels" in changes:
            label_node(name, changes["labels"])
        return _node(name)

    @extend_schema(request=None, responses=NodeDetailSerializer)
    @refuses(NodeNotFoundError, NodePendingError, NodePhaseError)
    def drain(self, request: Request, name: str) -> Response:
        """Drain the node: it gets no new operations."""
        drain_node(name)
        return _node(name)

    @extend_schema(request=None, responses=NodeDetailSerializer)
    @refuses(NodeNotFoundError, NodePendingError, NodePhaseError)
    def activate(self, request: Request, name: str) -> Response:
        """Activate a draining node."""
        activate_node(name)
        return _node(name)

    @extend_schema(request=None, responses=NodeDetailSerializer)
    @refuses(NodeNotFoundError, NodePhaseError)
    def decommission(self, request: Request, name: str) -> Response:
        """Decommission the node. It joins again when its agent is restarted."""
        decommission_node(name)
        return _node(name)

    @extend_schema(request=None, responses=NodeDetailSerializer)
    @refuses(NodeNotFoundError, NodePendingError, NodePhaseError)
    def forget(self, request: Request, name: str) -> Response:
        """Forget what the node has reported: inventory, generations and clock. The node is offline until its next heartbeat,
        which counts as its first."""
        forget_node(name)
        return _node(name)

    @extend_schema(request=AcceptSerializer, responses=NodeDetailSerializer)
    @refuses(NodeNotFoundError, NodeIdentityError, NodeKeyError)
    def accept(self, request: Request, name: str) -> Response:
        """Accept a pending node. It is part of the fleet from its next heartbeat on."""
        serializer = AcceptSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        accept_node(name, key=serializer.validated_data["key"])
        return _node(name)

    @extend_schema(request=None, responses=NodeDetailSerializer)
    @refuses(NodeNotFoundError)
    def revoke(self, request: Request, name: str) -> Response:
        """Revoke the node's identity. Its messages, its access to the broker and its download links are refused until it
        joins again with a new join token."""
        revoke_node(name)
        return _node(name)

    @extend_schema(request=None, responses=NodeDetailSerializer)
    @refuses(NodeNotFoundError, NodeIdentityError)
    def rekey(self, request: Request, name: str) -> Response:
        """Ask the node to replace its key and its broker password. Both keys are valid until it uses the new one."""
        request_rekey(name)
        return _node(name)


def _node(name: str) -> Response:
    return Response(node_detail(name))
