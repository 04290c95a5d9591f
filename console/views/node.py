"""The forms for a node's labels and address. The node's page and its actions are in `rollout.admin.nodes`."""

from collections.abc import Callable, Iterator
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect

from accounts.roles import Permission
from api.errors import ApiError
from console.page import page
from rollout.api.serializers.nodes import NodeChangesSerializer
from rollout.services.nodes import label_node, set_address
from ui.cells import page_url


@page(sees=Permission.VIEW_ALL_NODES_INFO, changes=Permission.UPDATE_NODE)
def labels(request: HttpRequest, name: str) -> HttpResponseBase:
    """Replace the operator labels of the node: one `name=value` per line."""
    return _changed(request, name, "labels", labels_in, label_node)


@page(sees=Permission.VIEW_ALL_NODES_INFO, changes=Permission.UPDATE_NODE)
def address(request: HttpRequest, name: str) -> HttpResponseBase:
    """Set the address by which other servers know the node's server. An empty one removes it."""
    return _changed(request, name, "address", str.strip, set_address)


def labels_in(text: str) -> dict[str, str]:
    """Return the labels, one `name=value` per line. Raises: `ValueError` with the line that is none."""
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    if wrong := [each for each in lines if "=" not in each]:
        raise ValueError(wrong[0])
    pairs = (each.partition("=") for each in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def texts_of(errors: Any) -> Iterator[str]:
    """Yield the errors of a serializer's field, or of each field after its name."""
    if isinstance(errors, dict):
        yield from (f"{name}: {' '.join(map(str, each))}" for name, each in errors.items())
    else:
        yield from map(str, errors)


def _changed(
    request: HttpRequest, node: str, field: str, value_in: Callable[[str], Any], change: Callable[[str, Any], None]
) -> HttpResponseBase:
    """Call `change` with the node and the posted field, show a message, and go to the node's page."""
    node_page = HttpResponseRedirect(page_url("rollout_node", node))
    if request.method != "POST":
        return node_page
    try:
        serializer = NodeChangesSerializer(data={field: value_in(request.POST.get(field, ""))})
        if not serializer.is_valid():
            messages.error(request, "; ".join(texts_of(serializer.errors[field])))
            return node_page
        change(node, serializer.validated_data[field])
    except ValueError as error:
        messages.error(request, f"Write each label as name=value: {error}")
    except ApiError as error:
        messages.error(request, error.description)
    else:
        messages.success(request, f"Saved the {field} of {node}.")
    return node_page
