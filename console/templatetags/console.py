"""Filters and tags for cells: `{% load console %}` `{{ phase|badge }}` `{{ moment|ago }}` `{% bar row %}`.

They use the same functions as the admin site's lists, so that a phase looks the same everywhere.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django import template
from django.contrib.admin.templatetags import admin_list
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest
from django.utils.html import format_html

from accounts import selectors
from accounts.roles import Permission
from console.links import start_url
from eventstore import in_words
from rollout.projections.node_modules import ModuleState
from ui import cells

register = template.Library()

register.filter("badge", cells.badge)
register.filter("digest", cells.digest)
register.filter("duration", cells.duration)
register.filter("page_url", cells.page_url)
register.filter("prose", cells.prose)
register.filter("in_words", in_words)


@register.filter
def ago(moment: datetime | None) -> str:
    return cells.ago(moment)


@register.filter
def exactly(moment: datetime | None) -> str:
    return cells.exactly(moment)


@register.filter
def words(value: str) -> str:
    """Return a phase, state or reason with spaces instead of underscores."""
    return value.replace("_", " ")


@register.filter
def under(row: Sequence[object], columns: Sequence[str]) -> list[tuple[str, object]]:
    """Return each cell of the row, after the name of its column."""
    return list(zip(columns, row, strict=True))


@register.filter
def may(request: HttpRequest, permission: str) -> bool:
    """Return True if the user has the permission: `{% if request|may:"update_node" %}`."""
    return selectors.may(request.user, Permission(permission))


@register.inclusion_tag("console/results.html", takes_context=True)
def results(context: Any, cl: ChangeList) -> dict[str, Any]:
    """Return the context of a list: rows, headers with sort links, and the actions for selected rows."""
    return {
        "cl": cl,
        "headers": list(admin_list.result_headers(cl)),
        "rows": list(admin_list.results(cl)),
        "actions": [each for each in cl.model_admin.get_actions(context["request"]).values() if each],
        "csrf_token": context.get("csrf_token"),
    }


@register.filter
def choices(spec: Any, cl: ChangeList) -> list[dict[str, Any]]:
    """Return the filter's choices: text, URL and whether each is selected."""
    return list(spec.choices(cl))


@register.filter
def pages_of(cl: ChangeList) -> list[int | str]:
    """Return the page numbers to show, with `…` for gaps."""
    return list(cl.paginator.get_elided_page_range(cl.page_num, on_each_side=2, on_ends=1))


@register.filter
def page_query(number: int, cl: ChangeList) -> str:
    return cl.get_query_string({"p": number})


@register.simple_tag
def bar(row: Any) -> str:
    """Return a rollout's progress: a bar, the percentage and the numbers in words."""
    return cells.bar(row)


@register.simple_tag
def cell(row: Any) -> str:
    """Return a cell of the matrix: the module version on the node, and its state."""
    meaning = cells.MEANINGS.get(row.state, cells.Meaning.QUIET)
    words = f"{row.state.replace('_', ' ')}: {row.observed}, {row.desired} desired"
    text = row.observed if row.state == ModuleState.IN_SYNC else f"{row.state}: {row.observed}"
    return format_html(
        '<span class="cell is-{}" title="{}">{} <small>{}</small></span>', meaning, words, row.version, text
    )


register.simple_tag(start_url)
