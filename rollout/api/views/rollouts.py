"""`/v2/rollouts`: start rollouts, and read them. The verbs are in `rollout_verbs.py`."""

import json

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from api.events import event_document
from api.idempotency import KeyReusedError, idempotent
from api.pagination import Listing, page_of, paginate
from api.refusals import refuses
from api.waiting import WaitingStream
from rollout.api.filters import OperationFilters, RolloutFilters
from rollout.api.serializers.events import SentEventSerializer
from rollout.api.serializers.plans import PlanSerializer
from rollout.api.serializers.rollouts import OperationSerializer, RolloutSerializer
from rollout.api.serializers.start import StartRolloutSerializer
from rollout.api.serializers.why import WhySerializer
from rollout.api.views.answers import PLAN_REFUSALS, accepted, operation_document, origin_of
from rollout.api.views.documents import (
    AS_OF,
    ETAG,
    IF_NONE_MATCH,
    LAST_EVENT_ID,
    LOCATION,
    WAIT,
    as_of,
    current_rollout,
    former_rollout,
)
from rollout.api.views.stream import event_stream, is_over, position_after
from rollout.domain.errors import (
    MissingDependencyError,
    NodeNotFoundError,
    PlanChangedError,
    RolloutNotFoundError,
)
from rollout.planning.forecast import plan_document
from rollout.planning.planner import plan_of
from rollout.queries import explanations
from rollout.queries.as_of import operation_as_of
from rollout.queries.operations import operation_documents, operation_rows
from rollout.queries.rollouts import rollout_rows
from rollout.services.start import start_rollout

ROLLOUTS = Listing(
    orders={
        "created_at": ("started_position",),
        "changed_at": ("position",),
        "module_name": ("module_name", "version", "started_position"),
        "phase": ("phase", "started_position"),
    },
    default="-created_at",
    filters=RolloutFilters,
)
OPERATIONS = Listing(
    orders={
        "ordinal": ("ordinal",),
        "node": ("node",),
        "phase": ("phase", "ordinal"),
        "wave": ("wave", "ordinal"),
    },
    default="ordinal",
    filters=OperationFilters,
)


class RolloutViewSet(ViewSet):
    permissions = {"GET": Permission.VIEW_CLUSTER_MODULES, "POST": Permission.MANAGE_CLUSTER_MODULES}

    @extend_schema(parameters=ROLLOUTS.parameters, responses=page_of(RolloutSerializer))
    def list(self, request: Request) -> Response:
        """List rollouts, newest first."""
        return paginate(
            request,
            rollout_rows(),
            ROLLOUTS,
            serialize=lambda rows: [json.loads(row.document) for row in rows],
        )

    @extend_schema(request=StartRolloutSerializer, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @idempotent
    @refuses(*PLAN_REFUSALS, MissingDependencyError, PlanChangedError, KeyReusedError)
    def create(self, request: Request) -> Response:
        """Start a rollout. The answer comes before the rollout has ended: poll its `Location`."""
        serializer = StartRolloutSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return accepted(request, start_rollout(serializer.to_request(origin_of(request))))

    @extend_schema(request=StartRolloutSerializer, responses=PlanSerializer)
    @refuses(*PLAN_REFUSALS, MissingDependencyError)
    def plan(self, request: Request) -> Response:
        """Return what a rollout would do, node by node. Nothing is started. To start exactly this plan, send the same body with
        its `plan_hash` to `/v2/rollouts`."""
        serializer = StartRolloutSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(plan_document(plan_of(serializer.to_request(origin_of(request)))))

    @extend_schema(responses={200: RolloutSerializer, 304: None}, parameters=[WAIT, AS_OF, IF_NONE_MATCH, ETAG])
    @refuses(RolloutNotFoundError)
    def retrieve(self, request: Request, uid: str) -> HttpResponseBase:
        """Return a rollout with its progress. Send its ETag as `If-None-Match` to get 304 while nothing has changed."""
        former = as_of(request)
        return current_rollout(request, uid) if former is None else former_rollout(request, uid, former)

    @extend_schema(
        operation_id="v2_rollouts_nodes_list", parameters=OPERATIONS.parameters, responses=page_of(OperationSerializer)
    )
    @refuses(RolloutNotFoundError)
    def nodes(self, request: Request, uid: str) -> Response:
        """List the rollout's nodes, in its order, as they are now. For the past, ask for one node, or for the rollout, with
        `as_of`."""
        return paginate(
            request,
            operation_rows(uid),
            OPERATIONS,
            serialize=operation_documents,
        )

    @extend_schema(responses=OperationSerializer, parameters=[AS_OF])
    @refuses(RolloutNotFoundError, NodeNotFoundError)
    def node(self, request: Request, uid: str, name: str) -> Response:
        """Return one node of the rollout."""
        former = as_of(request)
        return Response(operation_document(uid, name) if former is None else operation_as_of(uid, name, former))

    @extend_schema(responses=WhySerializer)
    @refuses(RolloutNotFoundError)
    def why(self, request: Request, uid: str) -> Response:
        """Explain the rollout's phase and what it waits for: the rule, a summary and the events."""
        return _answer(explanations.of_rollout(uid))

    @extend_schema(responses=WhySerializer)
    @refuses(RolloutNotFoundError, NodeNotFoundError)
    def node_why(self, request: Request, uid: str, name: str) -> Response:
        """Explain the phase of the rollout on this node, what it waits for, and what a person can do."""
        return _answer(explanations.of_node(uid, name))

    @extend_schema(responses={(200, "text/event-stream"): SentEventSerializer, 204: None}, parameters=[LAST_EVENT_ID])
    @refuses(RolloutNotFoundError)
    def events(self, request: Request, uid: str) -> HttpResponseBase:
        """Stream the rollout's events (SSE). `Last-Event-ID` resumes after that position of the log. The answer is 204 if
        the rollout has ended and that was its last event; a browser's EventSource then does not reconnect. The event
        `log.restored`, with id 0, ends the stream after a backup was restored: the client starts again from 0."""
        after = position_after(request)
        if is_over(uid, after):
            return HttpResponse(status=204)
        return StreamingHttpResponse(
            WaitingStream(event_stream(uid, after)),
            content_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )


def _answer(found: explanations.Answer) -> Response:
    return Response({**found.document, "events": [event_document(each) for each in found.events]})
