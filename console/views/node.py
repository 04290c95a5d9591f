"""The form for a node's labels. The node's page and its actions are in `rollout.admin.nodes`."""

from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect

from accounts.roles import Permission
from api.errors import ApiError
from console.page import page
from rollout.api.serializers.nodes import NodeChangesSerializer
from rollout.services.nodes import label_node
from ui.cells import page_url


@page(sees=Permission.VIEW_ALL_NODES_INFO, changes=Permission.UPDATE_NODE)
def labels(request: HttpRequest, name: str) -> HttpResponseBase:
    """Replace the operator labels of the node: one `name=value` per line."""
    node_page = HttpResponseRedirect(page_url("rollout_node", name))
    if request.method != "POST":
        return node_page
    try:
        serializer = NodeChangesSerializer(data={"labels": labels_in(request.POST.get("labels", ""))})
    except ValueError as error:
        messages.error(request, f"Write each label as name=value: {error}")
        return node_page
    if not serializer.is_valid():
        messages.error(request, "; ".join(_texts(serializer.errors["labels"])))
        return node_page
    try:
        label_node(name, serializer.validated_data["labels"])
    except ApiError as error:
        messages.error(request, error.description)
    else:
        messages.success(request, f"Saved the labels of {name}.")
    return node_page


def labels_in(text: str) -> dict[str, str]:
    """Return the labels, one `name=value` per line. Raises: `ValueError` with the line that is none."""
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    if wrong := [each for each in lines if "=" not in each]:
        raise ValueError(wrong[0])
    pairs = (each.partition("=") for each in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _texts(errors: Any) -> Iterator[str]:
    """Yield the errors of all labels, or of each label after its name."""
    if isinstance(errors, dict):
        yield from (f"{name}: {' '.join(map(str, each))}" for name, each in errors.items())
    else:
        yield from map(str, errors)
