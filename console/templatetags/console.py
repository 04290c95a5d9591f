"""What pages show in cells: `{% load console %}` `{{ phase|badge }}` `{{ moment|ago }}` `{% bar percent failed %}`.

The same functions as in the lists of the admin site: a phase looks the same everywhere.
"""

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
from rollout.projections.nodes import ModuleState
from ui import cells

register = template.Library()

register.filter("badge", cells.badge)
register.filter("digest", cells.digest)
register.filter("duration", cells.duration)
register.filter("page_url", cells.page_url)
register.filter("in_words", in_words)


@register.filter
def ago(moment: datetime | None) -> str:
    return cells.ago(moment)


@register.filter
def exactly(moment: datetime | None) -> str:
    return cells.exactly(moment)


@register.filter
def words(value: str) -> str:
    """A phase, state or reason as people read it."""
    return value.replace("_", " ")


@register.filter
def may(request: HttpRequest, permission: str) -> bool:
    """`{% if request|may:"update_node" %}`: what the role may not do has no button."""
    return selectors.may(request.user, Permission(permission))


@register.inclusion_tag("console/results.html", takes_context=True)
def results(context: Any, cl: ChangeList) -> dict[str, Any]:
    """The rows of a list, with the links that sort it and a box to select each row if there is an action to take."""
    return {
        "cl": cl,
        "headers": list(admin_list.result_headers(cl)),
        "rows": list(admin_list.results(cl)),
        "actions": [each for each in cl.model_admin.get_actions(context["request"]).values() if each],
        "csrf_token": context.get("csrf_token"),
    }


@register.filter
def choices(spec: Any, cl: ChangeList) -> list[dict[str, Any]]:
    """Of a filter: text, address, and whether it is the one that is chosen."""
    return list(spec.choices(cl))


@register.filter
def pages_of(cl: ChangeList) -> list[int | str]:
    """Numbers of pages, with `…` for those left out."""
    return list(cl.paginator.get_elided_page_range(cl.page_num, on_each_side=2, on_ends=1))


@register.filter
def page_query(number: int, cl: ChangeList) -> str:
    return cl.get_query_string({"p": number})


@register.simple_tag
def bar(row: Any) -> str:
    """Progress of a rollout's row: a bar in the colours of its counters, its percent and its numbers in words."""
    return cells.bar(row)


@register.simple_tag
def cell(row: Any) -> str:
    """A module version on a node in the matrix: its version, and in words what differs."""
    meaning = cells.MEANINGS.get(row.state, cells.Meaning.QUIET)
    words = f"{row.state.replace('_', ' ')}: {row.observed}, {row.desired} desired"
    said = row.observed if row.state == ModuleState.IN_SYNC else f"{row.state}: {row.observed}"
    return format_html(
        '<span class="cell is-{}" title="{}">{} <small>{}</small></span>', meaning, words, row.version, said
    )


register.simple_tag(start_url)
