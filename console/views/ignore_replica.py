"""The form that ignores a replica. The list of ignored replicas is in `rollout.admin.ignored_replicas`."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect

from accounts.roles import Permission
from api.errors import ApiError, ConflictError, InvalidRequestError
from api.statuses import status_of
from console.page import Crumb, answer, page
from console.views.node import texts_of
from eventstore import ConcurrencyError
from rollout.api.serializers.ignored_replicas import NewIgnoredReplicaSerializer
from rollout.services.ignored_replicas import ignore_replica
from ui.cells import list_url

LIST = "rollout_ignoredreplica"


@page(sees=Permission.MANAGE_CLUSTER_MODULES, changes=Permission.MANAGE_CLUSTER_MODULES)
def ignore(request: HttpRequest) -> HttpResponseBase:
    """Show the form, or ignore the replica."""
    if request.method != "POST":
        return _page(request, {})
    given = {field: request.POST.get(field, "").strip() for field in ("address", "reason")}
    serializer = NewIgnoredReplicaSerializer(data=given)
    if not serializer.is_valid():
        return _page(request, given, InvalidRequestError("; ".join(texts_of(serializer.errors))))
    try:
        address = ignore_replica(**serializer.validated_data)
    except ConcurrencyError:
        return _page(request, given, ConflictError())
    except ApiError as error:
        return _page(request, given, error)
    messages.success(request, f"{address} is ignored.")
    return HttpResponseRedirect(list_url(LIST, {"q": address}))


def _page(request: HttpRequest, given: Any, error: ApiError | None = None) -> HttpResponseBase:
    return answer(
        request,
        "console/ignore_replica.html",
        title="Ignore a replica",
        trail=[Crumb(text="Ignored replicas", url=list_url(LIST, {}))],
        status=status_of(error) if error else 200,
        given=given,
        error=error,
    )
