"""Cells that several pages share. A cell with `@admin.display` is also a column of a list and a field of a page."""

from django.contrib import admin

from eventstore import in_words
from rollout.messages import Reason
from rollout.models import NodeModule, Operation, Rollout
from ui.cells import NOTHING, badge, link, module_url, page_url


def rollout_link(uid: str) -> str:
    return link(page_url("rollout_rollout", uid), uid[:8]) if uid else NOTHING


@admin.display(description="node", ordering="node")
def node_link(row: Operation | NodeModule) -> str:
    return link(page_url("rollout_node", row.node), row.node)


@admin.display(description="module", ordering="module_name")
def module_link(row: Operation | NodeModule) -> str:
    return link(module_url(row.module_name, row.version), f"{row.module_name} {row.version}")


@admin.display(description="phase", ordering="phase")
def phase_badge(row: Rollout | Operation) -> str:
    return badge(row.phase)


@admin.display(description="operation", ordering="action")
def operation_title(row: Operation) -> str:
    return f"{'undo: ' if row.rollback else ''}{row.action} {row.module_name} {row.version}"


@admin.display(description="by", ordering="asked_by")
def requester(row: Operation) -> str:
    """Return who requested the operation, and who canceled it."""
    asked = "the strategy" if row.automatic else row.asked_by or NOTHING
    if not row.canceled_by:
        return asked
    verb = "taken over" if row.reason == Reason.NEWER_ROLLOUT else "canceled"
    return f"{asked}, {verb} by {in_words(row.canceled_by)}"
