"""What is changed on a node's page besides its verbs. The page itself is in `rollout.admin`."""

from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect

from accounts.roles import Permission
from api.errors import ApiError
from console.page import page
from rollout.api.serializers.nodes import LabelsSerializer
from rollout.services.nodes import label_node
from ui.cells import page_url


@page(sees=Permission.VIEW_ALL_NODES_INFO, changes=Permission.UPDATE_NODE)
def labels(request: HttpRequest, name: str) -> HttpResponseBase:
    """The labels that an operator gives the node: all of them, one `name=value` a line."""
    there = HttpResponseRedirect(page_url("rollout_node", name))
    if request.method != "POST":
        return there
    lines = [each.strip() for each in request.POST.get("labels", "").splitlines() if each.strip()]
    if wrong := [each for each in lines if "=" not in each]:
        messages.error(request, f"Write each label as name=value: {wrong[0]}")
        return there
    pairs = (each.partition("=") for each in lines)
    serializer = LabelsSerializer(data={"labels": {name.strip(): value.strip() for name, _, value in pairs}})
    if not serializer.is_valid():
        messages.error(request, "; ".join(_faults(serializer.errors["labels"])))
        return there
    try:
        label_node(name, serializer.validated_data["labels"])
    except ApiError as error:
        messages.error(request, error.description)
    else:
        messages.success(request, f"The labels of {name} are set.")
    return there


def _faults(found: Any) -> Iterator[str]:
    """Of all labels, or of each that is called by its name."""
    if isinstance(found, dict):
        yield from (f"{name}: {' '.join(map(str, each))}" for name, each in found.items())
    else:
        yield from map(str, found)
