"""Read-only lists and pages of the admin site. Rows change only by events.

All text that a node or a person wrote goes through `format_html` or a template, which escape it.
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
    """Rows that belong to an object, shown below its fields. `more` is the URL of the complete list.

    A table without columns has facts: each row is a name and its value.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    when_empty: str
    more: str = ""


class ReadOnlyAdmin(ModelAdmin):
    """A list and a page for each row, without forms."""

    #: One or two sentences at the top of the page that explain it to a new user.
    about = ""

    list_per_page = 100
    list_max_show_all = 100
    #: Facets would count the rows once for each choice.
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
        """Return links for the list's header."""
        return ()

    def links(self, row: Any) -> Iterable[Link]:
        """Return links for the header of the row's page."""
        return ()

    def tables(self, row: Any) -> Iterable[Table]:
        """Return the tables below the row's fields."""
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
        """Return 404: Django's history is always empty, because no row is changed through its forms."""
        return HttpResponse("See the event log for the history.", status=404, content_type="text/plain")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return flatten_fieldsets([(None, {"fields": self.fields})]) if self.fields else ()


def choice_filter(column: str, values: Iterable[str]) -> type[admin.SimpleListFilter]:
    """Return a filter with known choices, so that it does not search a million rows for them."""
    choices = tuple((str(each), str(each)) for each in values)

    class ChoiceFilter(admin.SimpleListFilter):
        title = column.replace("_", " ")
        parameter_name = column

        def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
            return choices

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            return queryset.filter(**{column: self.value()}) if self.value() is not None else queryset

    return ChoiceFilter
