"""How the admin site shows what the log holds: to look at, because rows change by events alone.

Everything a node or a person wrote goes through `format_html` or a template, which escape it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin

from ui.cells import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that belong to an object, shown below its fields; `more` is where the complete list is."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    when_empty: str
    more: str = ""


class ReadOnlyAdmin(ModelAdmin):
    """A list and a page for each row, without forms."""

    #: What the pages are about, for whoever opens them for the first time.
    about = ""

    list_per_page = 100
    list_max_show_all = 100
    #: They would count the rows once for each choice.
    show_facets = admin.ShowFacets.NEVER
    change_list_template = "console/list.html"
    change_form_template = "console/row.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def list_links(self, request: HttpRequest) -> Iterable[Link]:
        """What to do next from the list."""
        return ()

    def links(self, row: Any) -> Iterable[Link]:
        """Where to go on from the row's page."""
        return ()

    def tables(self, row: Any) -> Iterable[Table]:
        """What the row's page shows below its fields."""
        return ()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        context: dict[str, Any] = {"about": self.about, "links": self.list_links(request), **(extra_context or {})}
        return super().changelist_view(request, context)

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
