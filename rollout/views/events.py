"""`/v2/events`: the audit log."""

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from api.pagination import page_of, paginate_by
from eventstore.store import RecordedEvent, read_page
from rollout import selectors
from rollout.serializers.events import EventSerializer


class EventViewSet(ViewSet):
    permissions = {"GET": Permission.VIEW_LOGGED_EVENTS}

    @extend_schema(responses=page_of(EventSerializer))
    def list(self, request: Request) -> Response:
        """The audit log: all events in the order in which they were recorded."""

        def fetch(after: Any, limit: int) -> Sequence[RecordedEvent]:
            return read_page(after=after or 0, limit=limit)

        return paginate_by(
            request,
            fetch,
            key_of=lambda each: each.position,
            serialize=lambda rows: [selectors.event_document(each) for each in rows],
        )
