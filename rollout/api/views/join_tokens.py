"""`/v2/join-tokens`."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from api.idempotency import KeyReusedError, idempotent
from api.pagination import Listing, page_of, paginate
from api.refusals import refuses
from rollout.api.filters import JoinTokenFilters
from rollout.api.serializers.enrolment import CreatedJoinTokenSerializer, JoinTokenSerializer, NewJoinTokenSerializer
from rollout.domain.errors import JoinTokenNotFoundError
from rollout.queries.join_tokens import (
    host_command,
    note_about,
    token_document,
    token_documents,
    token_row,
    token_rows,
    token_text,
)
from rollout.services.enrolment import create_join_token, revoke_join_token

TOKENS = Listing(orders={"created_at": ("created_position",)}, default="-created_at", filters=JoinTokenFilters)
LOCATION = OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[201], required=True)


class JoinTokenViewSet(ViewSet):
    permissions = dict.fromkeys(("GET", "POST", "DELETE"), Permission.UPDATE_NODE)

    @extend_schema(parameters=TOKENS.parameters, responses=page_of(JoinTokenSerializer))
    def list(self, request: Request) -> Response:
        """List join tokens, newest first. Their secrets are not shown."""
        return paginate(request, token_rows(), TOKENS, serialize=token_documents)

    @extend_schema(request=NewJoinTokenSerializer, responses={201: CreatedJoinTokenSerializer}, parameters=[LOCATION])
    @refuses(KeyReusedError)
    def create(self, request: Request) -> Response:
        """Create a join token, for one node or for a group of nodes. Only this answer has the token and the command to run on
        the node's host."""
        response = self._create(request)
        row = token_row(response.data["id"])
        response.data |= {"token": token_text(row.id), "command": host_command(row), "note": note_about(row)}
        return response

    # What is kept for the key has no secret.
    @idempotent
    def _create(self, request: Request) -> Response:
        serializer = NewJoinTokenSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        document = token_document(token_row(create_join_token(**serializer.validated_data)))
        location = request.build_absolute_uri(f"/v2/join-tokens/{document['id']}")
        return Response(document, status=201, headers={"Location": location, "Cache-Control": "no-store"})

    @extend_schema(responses=JoinTokenSerializer)
    @refuses(JoinTokenNotFoundError)
    def retrieve(self, request: Request, token: str) -> Response:
        """Return one join token, without its secret."""
        return Response(token_document(token_row(token)))

    @extend_schema(responses={200: JoinTokenSerializer})
    @refuses(JoinTokenNotFoundError)
    def destroy(self, request: Request, token: str) -> Response:
        """Revoke the join token. Nodes that have used it keep their identity."""
        revoke_join_token(token)
        return Response(token_document(token_row(token)))
