"""Adds a node: creates a join token, and shows the command for the node's host once."""

from typing import Any

from django.http import HttpRequest, HttpResponseBase

from accounts.roles import Permission
from api.errors import ApiError, ConflictError
from api.statuses import status_of
from console.page import Crumb, answer, page
from console.views.node import labels_in
from eventstore import ConcurrencyError
from rollout.api.serializers.enrolment import NewJoinTokenSerializer
from rollout.domain.errors import InvalidJoinTokenError
from rollout.queries.join_tokens import host_command, note_about, token_row
from rollout.services.enrolment import create_join_token
from ui.cells import list_url

#: How long a token may be valid, seconds.
EXPIRIES = ((3600, "1 hour"), (86_400, "1 day"), (7 * 86_400, "7 days"), (30 * 86_400, "30 days"))


@page(sees=Permission.UPDATE_NODE, changes=Permission.UPDATE_NODE)
def add_node(request: HttpRequest) -> HttpResponseBase:
    """Show the form, or create a token and show the command that uses it. No other page shows the command."""
    if request.method != "POST":
        return _page(request, {"uses": "1"})
    try:
        row = token_row(create_join_token(**_given(request)))
    except ConcurrencyError:
        return _page(request, request.POST, ConflictError())
    except ApiError as error:
        return _page(request, request.POST, error)
    # No browser or proxy stores pages of the console.
    return _page(request, {}, row=row, command=host_command(row), note=note_about(row))


def _given(request: HttpRequest) -> dict[str, Any]:
    """Raises: `InvalidJoinTokenError`, which names the field."""
    post = request.POST
    name = post.get("name", "").strip()
    target: dict[str, Any] = {"node": name}
    if "*" in name:
        target = {"pattern": name, "uses": _whole(post.get("uses", "")), "auto_accept": "auto_accept" in post}
    try:
        labels = labels_in(post.get("labels", ""))
    except ValueError as error:
        raise InvalidJoinTokenError(f"Labels: write each label as name=value: {error}") from error
    options = {"labels": labels, "expires_in_seconds": _whole(post.get("expires", "")), "observe": "observe" in post}
    serializer = NewJoinTokenSerializer(data={**target, **options})
    if not serializer.is_valid():
        wrong = ((field, str(each)) for field, errors in serializer.errors.items() for each in errors)
        raise InvalidJoinTokenError("; ".join(f"{_TITLES.get(field, field)}: {each}" for field, each in wrong))
    given: dict[str, Any] = serializer.validated_data
    return given


_TITLES = {"node": "Name", "pattern": "Name", "expires_in_seconds": "Expires", "uses": "Number of nodes"}


def _whole(text: str) -> int | str:
    """Return the number, or the text itself for the serializer to refuse."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _page(request: HttpRequest, given: Any, error: ApiError | None = None, **more: Any) -> HttpResponseBase:
    return answer(
        request,
        "console/add_node.html",
        title="Add a node",
        trail=[Crumb(text="Nodes", url=list_url("rollout_node", {}))],
        status=status_of(error) if error else 200,
        given=given,
        error=error,
        expiries=EXPIRIES,
        **more,
    )
