"""What pages show in cells: `{% load console %}` `{{ phase|badge }}` `{{ moment|ago }}` `{% bar percent failed %}`.

The same functions as in the lists of the admin site: a phase looks the same everywhere.
"""

from datetime import datetime
from typing import Any

from django import template
from django.http import HttpRequest
from django.utils.html import format_html

from accounts import selectors
from accounts.roles import Permission
from eventstore import cells

register = template.Library()

register.filter("badge", cells.badge)
register.filter("digest", cells.digest)
register.filter("duration", cells.duration)
register.filter("page_url", cells.page_url)


@register.filter
def ago(moment: datetime | None) -> str:
    return cells.ago(moment)


@register.filter
def exactly(moment: datetime | None) -> str:
    return cells.exactly(moment)


@register.filter
def may(request: HttpRequest, permission: str) -> bool:
    """`{% if request|may:"update_node" %}`: what the role may not do has no button."""
    return selectors.may(request.user, Permission(permission))


@register.simple_tag
def bar(row: Any) -> str:
    """Progress of a rollout's row: a bar in the colours of its counters, its percent and its numbers in words."""
    return cells.bar({name: getattr(row, name) for name in cells.BAR_PARTS}, total=row.total)


@register.simple_tag
def cell(row: Any) -> str:
    """A module version on a node in the matrix: its version, and in words what differs."""
    meaning = cells.MEANINGS.get(row.state, cells.Meaning.QUIET)
    words = f"{row.state.replace('_', ' ')}: {row.observed}, {row.desired} desired"
    said = row.observed if row.state == "in_sync" else f"{row.state}: {row.observed}"
    return format_html(
        '<span class="cell is-{}" title="{}">{} <small>{}</small></span>', meaning, words, row.version, said
    )
