"""How the admin site shows what the log holds: to look at, because rows change by events alone.

Everything a node or a person wrote goes through `format_html` or a template, which escape it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets, quote
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode

NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that belong to an object, shown below its fields; `more` is where the complete list is."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    when_empty: str
    more: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    url: str
    text: str


class ReadOnlyAdmin(admin.ModelAdmin[Any]):
    """A list and a page for each row, without forms."""

    #: What the pages are about, for whoever opens them for the first time.
    about = ""

    list_per_page = 100
    list_max_show_all = 100
    #: They would count the rows once for each choice.
    show_facets = admin.ShowFacets.NEVER
    change_list_template = "admin/modfleet/change_list.html"
    change_form_template = "admin/modfleet/change_form.html"

    class Media:
        css = {"all": ["modfleet/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def links(self, row: Any) -> Iterable[Link]:
        """Where to go on from the row's page."""
        return ()

    def tables(self, row: Any) -> Iterable[Table]:
        """What the row's page shows below its fields."""
        return ()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"about": self.about, **(extra_context or {})})

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        context |= {"about": self.about, "links": self.links(obj), "tables": self.tables(obj)}
        return super().render_change_form(request, context, add, change, form_url, obj)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Django's own history stays empty: nothing here is changed through its forms. The log has it."""
        return HttpResponse("The history is in the event log.", status=404, content_type="text/plain")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return flatten_fieldsets([(None, {"fields": self.fields})]) if self.fields else ()


def choice_filter(column: str, values: Iterable[str]) -> type[admin.SimpleListFilter]:
    """A filter whose choices are known, so that they need not be looked for among a million rows."""
    choices = tuple((str(each), str(each)) for each in values)

    class ChoiceFilter(admin.SimpleListFilter):
        title = column.replace("_", " ")
        parameter_name = column

        def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
            return choices

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            return queryset.filter(**{column: self.value()}) if self.value() is not None else queryset

    return ChoiceFilter


# --- Values in cells --------------------------------------------------------------------------------------------------


def page_url(page: str, key: object) -> str:
    """Of one row; `page` is `<app>_<model>`."""
    return reverse(f"admin:{page}_change", args=[quote(str(key))])


def list_url(page: str, lookups: Mapping[str, Any]) -> str:
    return f"{reverse(f'admin:{page}_changelist')}?{urlencode(lookups)}"


def events_link(stream: str) -> Link:
    """To what the log holds of the stream."""
    return Link(url=list_url("eventstore_storedevent", {"q": stream}), text="Events")


def link(url: str, text: object) -> str:
    return format_html('<a href="{}">{}</a>', url, text)


def badge(value: str) -> str:
    """A phase or a state, coloured by what it means."""
    return format_html('<span class="badge badge-{}">{}</span>', value, value.replace("_", " ")) if value else NOTHING


def digest(value: str) -> str:
    """The beginning of a digest; all of it on hovering."""
    return format_html('<code title="{}">{}</code>', value, value[:12]) if value else NOTHING


def ago(moment: datetime | None) -> str:
    """How long ago; the exact time on hovering."""
    if moment is None:
        return NOTHING
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', moment.isoformat(), _exactly(moment), naturaltime(moment)
    )


def exactly(moment: datetime | None) -> str:
    """The time, and how long ago that is."""
    if moment is None:
        return NOTHING
    return format_html('<time datetime="{}">{}</time> ({})', moment.isoformat(), _exactly(moment), naturaltime(moment))


def _exactly(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float | None) -> str:
    """`0.42 s`, `3 min 20 s`."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def preformatted(text: str) -> str:
    return format_html("<pre>{}</pre>", text)
