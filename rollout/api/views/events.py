"""`/v2/events`: the audit log."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from api.events import event_document
from api.pagination import Listing, page_of, paginate
from eventstore import all_events, newest_head, read_rows
from rollout.api.filters import EventFilters
from rollout.api.serializers.events import EventSerializer, HeadSerializer

EVENTS = Listing(orders={"position": ("position",)}, default="position", filters=EventFilters)


class EventViewSet(ViewSet):
    permissions = {"GET": Permission.VIEW_LOGGED_EVENTS}

    @extend_schema(parameters=EVENTS.parameters, responses=page_of(EventSerializer))
    def list(self, request: Request) -> Response:
        """List all events of the log, oldest first."""
        return paginate(
            request,
            all_events(),
            EVENTS,
            read=read_rows,
            serialize=lambda rows: [event_document(each) for each in rows],
        )

    @extend_schema(responses=HeadSerializer)
    def head_of_the_log(self, request: Request) -> Response:
        """Return the position and the hash of the newest event. The hash covers all events before it."""
        return Response(newest_head()._asdict())
