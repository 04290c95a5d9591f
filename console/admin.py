"""The event log in the admin site: newest first, paged by position, never counted."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.functional import cached_property

from eventstore import StoredEvent, by_actor, metadata_of, of_request, position_at, registered_types, shown
from ui.cells import NOTHING, Link, ago, events_link, exactly, link, list_url, page_url, preformatted
from ui.pages import ReadOnlyAdmin, choice_filter

_BEFORE = "position__lt"


class OnePage(Paginator[Any]):
    """Counts at most one row more than the page shows: enough to know whether there is an older one."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # the admin site hands over nothing else
        return rows[: self.per_page + 1].count()


class TypedFilter(admin.SimpleListFilter):
    """A filter with a text that a person types, instead of choices."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return ()

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: Any) -> Iterator[Any]:
        return iter(())


class ActorFilter(TypedFilter):
    """Events of an actor. Scans all events, from the newest."""

    title = parameter_name = "actor"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        return by_actor(queryset, str(self.value()))


class RequestFilter(TypedFilter):
    """All events that followed from one request."""

    title, parameter_name = "request", "correlation_id"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return of_request(queryset, str(self.value())) if self.value() else queryset


class TimeFilter(TypedFilter):
    """A time, UTC if it names no zone. The filter uses the position at that time, because times have no index."""

    def position(self) -> int | None:
        if not self.value():
            return None
        try:
            moment = datetime.fromisoformat(str(self.value()))
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError) as error:  # OverflowError: its zone puts it before year 1
            raise IncorrectLookupParameters(self.title) from error
        return position_at(moment)


class SinceFilter(TimeFilter):
    title = parameter_name = "since"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        position = self.position()
        return queryset if position is None else queryset.filter(position__gt=position)


class UntilFilter(TimeFilter):
    title = parameter_name = "until"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        position = self.position()
        return queryset if position is None else queryset.filter(position__lte=position)


@admin.register(StoredEvent)
class EventAdmin(ReadOnlyAdmin):
    about = (
        "Every change, as it was recorded: what, in which stream, by whom, at whose request and when. Events are only "
        "added, never changed. All other pages are computed from them."
    )
    list_display = ["position", "recorded", "type", "actor", "requested_by", "stream_link"]
    search_fields = ["stream"]
    search_help_text = (
        "A stream or the start of its name: node:<name>, rollout:<uid>, module:<uid>, artifact:<name>:<version>, "
        "placement:<node>:<module>, account:<uid>."
    )
    ordering = ["-position"]
    sortable_by = ()
    paginator = OnePage
    show_full_result_count = False
    change_list_template = "console/events.html"
    fields = [
        "position",
        "type",
        "recorded_at_exactly",
        "actor",
        "requested_by",
        "request_link",
        "cause",
        "stream_link",
        "version",
        "event_id",
    ]
    fields += ["pretty_data", "hash"]

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Return the filters. Built for each request, because all apps have registered their events by then."""
        return [choice_filter("type", registered_types()), ActorFilter, RequestFilter, SinceFilter, UntilFilter]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find a whole stream name by its index. Otherwise scan all events from the newest for the prefix."""
        if not search_term:
            return queryset, False
        if StoredEvent.objects.filter(stream=search_term).exists():
            return queryset.filter(stream=search_term), False
        return queryset.filter(stream__startswith=search_term), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        response = super().changelist_view(request, extra_context)
        context = getattr(response, "context_data", None) or {}
        if (shown := context.get("cl")) is not None:
            rows = list(shown.result_list)
            more = shown.result_count > self.list_per_page
            context["older"] = shown.get_query_string({_BEFORE: rows[-1].position}) if more else ""
            context["newest"] = shown.get_query_string(remove=[_BEFORE]) if _BEFORE in shown.params else ""
        return response

    def links(self, row: StoredEvent) -> list[Link]:
        return [events_link(row.stream)]

    @admin.display(description="time")
    def recorded(self, row: StoredEvent) -> str:
        return ago(row.recorded_at)

    @admin.display(description="time")
    def recorded_at_exactly(self, row: StoredEvent) -> str:
        return exactly(row.recorded_at)

    @admin.display(description="stream")
    def stream_link(self, row: StoredEvent) -> str:
        return link(events_link(row.stream).url, row.stream)

    @admin.display(description="actor")
    def actor(self, row: StoredEvent) -> str:
        return _actor(row, "actor")

    @admin.display(description="requested by")
    def requested_by(self, row: StoredEvent) -> str:
        return _actor(row, "requested_by")

    @admin.display(description="request")
    def request_link(self, row: StoredEvent) -> str:
        correlation_id = _metadata(row, "correlation_id")
        if not correlation_id:
            return NOTHING
        return link(list_url("eventstore_storedevent", {"correlation_id": correlation_id}), correlation_id)

    @admin.display(description="caused by")
    def cause(self, row: StoredEvent) -> str:
        """Return a link to the event that caused this one."""
        causation_id = _metadata(row, "causation_id")
        found = StoredEvent.objects.filter(event_id=causation_id).first() if causation_id else None
        return NOTHING if found is None else link(page_url("eventstore_storedevent", found.position), found)

    @admin.display(description="data")
    def pretty_data(self, row: StoredEvent) -> str:
        """Return the data as stored, also for an event type that this version does not know."""
        try:
            text = json.dumps(json.loads(row.data), indent=2, ensure_ascii=False)
        except ValueError:
            text = row.data
        return preformatted(text)


def _actor(row: StoredEvent, name: str) -> str:
    return shown(_metadata(row, name)) or NOTHING


def _metadata(row: StoredEvent, name: str) -> str:
    """Return the value, or an empty text if the row's metadata cannot be read: the page shows the row all the same."""
    try:
        found: str = getattr(metadata_of(row.type, row.stream, row.metadata), name)
    except msgspec.MsgspecError:
        return ""
    return found
