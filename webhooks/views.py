"""`/v2/webhooks`. Only for admins, also to read: a receiver's URL may be a credential."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from api.events import event_document
from api.fields import NothingSerializer
from api.idempotency import KeyReusedError, idempotent
from api.pagination import Listing, page_of, paginate
from api.refusals import refuses
from rollout.api.serializers.events import EventSerializer
from webhooks import selectors, services
from webhooks.errors import WebhookDisabledError, WebhookNotFoundError
from webhooks.filters import WebhookFilters
from webhooks.serializers import (
    NewWebhookSerializer,
    RegisteredWebhookSerializer,
    WebhookChangesSerializer,
    WebhookSerializer,
)

WEBHOOKS = Listing(orders={"created_at": ("registered_position",)}, default="-created_at", filters=WebhookFilters)


LOCATION = OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[201], required=True)


class WebhookViewSet(ViewSet):
    permissions = dict.fromkeys(("GET", "POST", "PATCH", "DELETE"), Permission.UPDATE_CLUSTER)

    @extend_schema(parameters=WEBHOOKS.parameters, responses=page_of(WebhookSerializer))
    def list(self, request: Request) -> Response:
        """List webhooks, newest first."""
        return paginate(
            request,
            selectors.webhooks(),
            WEBHOOKS,
            serialize=lambda rows: [selectors.webhook_document(row) for row in rows],
        )

    # An answer that is kept for its key has the secret, for 24 hours, in the database that has it anyway: a client that has
    # missed the first answer needs it, and only the same user with the same request gets it.
    @extend_schema(request=NewWebhookSerializer, responses={201: RegisteredWebhookSerializer}, parameters=[LOCATION])
    @idempotent
    @refuses(KeyReusedError)
    def create(self, request: Request) -> Response:
        """Register a webhook for events from now on. Only this answer has its secret."""
        serializer = NewWebhookSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        given = serializer.validated_data
        row = services.register_webhook(
            url=given["url"], types=tuple(given["types"]), enabled=given["enabled"], secret=given.get("secret")
        )
        document = {**selectors.webhook_document(row), "secret": row.secret}
        location = request.build_absolute_uri(f"/v2/webhooks/{row.uid}")
        return Response(document, status=201, headers={"Location": location, "Cache-Control": "no-store"})

    @extend_schema(responses=WebhookSerializer)
    @refuses(WebhookNotFoundError)
    def retrieve(self, request: Request, uid: str) -> Response:
        """Get a webhook, and how far it was served."""
        return Response(selectors.webhook_document(selectors.webhook(uid)))

    @extend_schema(request=WebhookChangesSerializer, responses=WebhookSerializer)
    @refuses(WebhookNotFoundError)
    def partial_update(self, request: Request, uid: str) -> Response:
        """Change the given fields. A webhook that is enabled again continues with the event at which it stopped."""
        serializer = WebhookChangesSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(selectors.webhook_document(services.update_webhook(uid, serializer.changes())))

    @extend_schema(responses={200: NothingSerializer})
    @refuses(WebhookNotFoundError)
    def destroy(self, request: Request, uid: str) -> Response:
        """Delete a webhook. Events that were not delivered yet are never delivered."""
        services.delete_webhook(uid)
        return Response({})

    @extend_schema(request=None, responses={202: EventSerializer})
    @idempotent
    @refuses(WebhookNotFoundError, WebhookDisabledError, KeyReusedError)
    def test(self, request: Request, uid: str) -> Response:
        """Deliver a test event to the webhook now, whatever its types are. Returns the event as the receiver gets it."""
        return Response(event_document(services.request_test(uid)), status=202)
