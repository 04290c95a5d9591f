"""What the views of `/v2/rollouts` share: their answers, and the errors of a plan."""

import json
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from artifacts_app.errors import ArtifactNotFoundError
from rollout.domain.errors import (
    CommandsInUseError,
    DependencyCycleError,
    ModuleNeededError,
    NoMatchError,
    NoNodesError,
    RolloutInProgressError,
    UnknownNodeError,
)
from rollout.domain.rollout.events import Origin
from rollout.queries.operations import operation_documents, operation_row
from rollout.queries.rollouts import rollout_document

#: The errors of each route that plans what nodes install or remove.
PLAN_REFUSALS = (
    UnknownNodeError,
    NoNodesError,
    NoMatchError,
    RolloutInProgressError,
    ArtifactNotFoundError,
    DependencyCycleError,
    ModuleNeededError,
    CommandsInUseError,
)


def origin_of(request: Request) -> Origin:
    """Return where the request comes from, by its User-Agent. It is only displayed."""
    return Origin.CLI if request.headers.get("User-Agent", "").startswith("modfleet-cli") else Origin.API


def accepted(request: Request, uid: str) -> Response:
    """Answer 202 with the rollout, and its URL in `Location`."""
    document, _, _ = rollout_document(uid)
    location = request.build_absolute_uri(f"/v2/rollouts/{uid}")
    return Response(json.loads(document), status=202, headers={"Location": location})


def operation_document(uid: str, name: str) -> dict[str, Any]:
    """Return the rollout on one node as JSON."""
    (document,) = operation_documents([operation_row(uid, name)])
    return document
