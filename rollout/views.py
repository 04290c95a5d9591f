"""Rollouts, nodes, artifacts and the audit log over HTTP. The vendor's older routes are in `vendor_views`."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from accounts.selectors import require_modules_upload_allowed
from api.errors import InvalidRequestError, NotFoundError
from api.idempotency import digest_of, idempotent, keep_response, stored_response
from api.pagination import page_of, paginate, paginate_by
from api.seed import SeedViewSet
from artifacts_app.selectors import artifact_document, artifact_documents, versions_after
from artifacts_app.services import Upload, add_build, delete_artifact
from artifacts_app.uploads import PackageUploadView
from eventstore.follow import wait_for_growth
from eventstore.store import RecordedEvent, head, read_page
from rollout import history, local, selectors, services, verbs, why
from rollout.events import FINAL_ROLLOUT_PHASES
from rollout.planning.forecast import plan_document
from rollout.planning.planner import plan_of
from rollout.serializers import (
    ArtifactSerializer,
    CancelSerializer,
    EventSerializer,
    FreezeSerializer,
    LabelsSerializer,
    LocalArtifactSerializer,
    NodeSerializer,
    OperationSerializer,
    PackageSerializer,
    PlanSerializer,
    PromoteSerializer,
    ReasonSerializer,
    RemarkSerializer,
    RolloutSerializer,
    StartRolloutSerializer,
    WhySerializer,
)

LONGEST_WAIT_SECONDS = 60.0
#: How often a stream speaks up on which nothing happens, seconds: proxies keep it open then, and a client that has gone
#: away is noticed, which holds a thread of the server until then.
HEARTBEAT_SECONDS = 2.0
STREAM_BATCH = 500

AS_OF = OpenApiParameter("as_of", str, description="A position of the log or a time: the answer as it was then")

UPLOAD = {"multipart/form-data": PackageSerializer}


class RolloutViewSet(ViewSet):
    permissions = {"GET": Permission.VIEW_CLUSTER_MODULES, "POST": Permission.MANAGE_CLUSTER_MODULES}

    @extend_schema(responses=page_of(RolloutSerializer))
    def list(self, request: Request) -> Response:
        """List rollouts, newest first."""
        return paginate(
            request,
            selectors.rollouts(),
            key="-started_position",
            serialize=lambda rows: [json.loads(row.document) for row in rows],
        )

    @extend_schema(request=StartRolloutSerializer, responses={202: RolloutSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Start a rollout. It is on its way when this answers; poll its `Location`."""
        serializer = StartRolloutSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return _accepted(request, services.start_rollout(serializer.to_request()))

    @extend_schema(request=StartRolloutSerializer, responses=PlanSerializer)
    def plan(self, request: Request) -> Response:
        """What a rollout would do, wave by node. Nothing is started: send the same with the `plan_hash` for that."""
        serializer = StartRolloutSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(plan_document(plan_of(serializer.to_request())))

    @extend_schema(
        responses=RolloutSerializer,
        parameters=[OpenApiParameter("wait", float, description="Seconds to wait for a change, at most 60"), AS_OF],
    )
    def retrieve(self, request: Request, uid: str) -> HttpResponseBase:
        """One rollout with its progress. Send its ETag as `If-None-Match`: 304 while nothing has changed."""
        given = _etags(request)
        if (as_of := _as_of(request)) is not None:
            former = history.rollout_as_of(uid, as_of)
            return _document(json.dumps(former.document), f'"{former.position}"', given)
        deadline = time.monotonic() + _wait_seconds(request)
        known = given - {"*"}
        while True:
            position = head()
            document, version, phase = selectors.rollout_document(uid)
            etag = f'"{version}"'
            known = known or {etag}
            left = deadline - time.monotonic()
            if etag not in known or phase in FINAL_ROLLOUT_PHASES or left <= 0:
                break
            wait_for_growth(position, timeout=left)
        return _document(document, etag, given)

    @extend_schema(operation_id="v2_rollouts_nodes_list", responses=page_of(OperationSerializer))
    def nodes(self, request: Request, uid: str) -> Response:
        """List the rollout's nodes, in its order."""
        return paginate(
            request,
            selectors.operations(uid),
            key="ordinal",
            serialize=lambda rows: [selectors.operation_document(row) for row in rows],
        )

    @extend_schema(responses=OperationSerializer, parameters=[AS_OF])
    def node(self, request: Request, uid: str, name: str) -> Response:
        """One node of the rollout."""
        as_of = _as_of(request)
        row = selectors.operation(uid, name) if as_of is None else history.operation_as_of(uid, name, as_of)
        return Response(selectors.operation_document(row))

    @extend_schema(responses=WhySerializer)
    def why(self, request: Request, uid: str) -> Response:
        """Why the rollout is in its phase, and what it waits for: the rule and the events, in words."""
        return _answer(why.of_rollout(uid))

    @extend_schema(responses=WhySerializer)
    def node_why(self, request: Request, uid: str, name: str) -> Response:
        """Why the rollout is so far on this node, what it waits for there, and what a person can do."""
        return _answer(why.of_node(uid, name))

    @extend_schema(responses={(200, "text/event-stream"): str, 204: None})
    def events(self, request: Request, uid: str) -> HttpResponseBase:
        """Stream the rollout's events as they happen (SSE). `Last-Event-ID` resumes after that position of the log; 204
        if the rollout has ended and that was its last, at which a browser's EventSource does not come again."""
        _, newest, phase = selectors.rollout_document(uid)
        after = request.headers.get("Last-Event-ID") or request.query_params.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            raise InvalidRequestError("Last-Event-ID: must be a position of the log.")
        if phase in FINAL_ROLLOUT_PHASES and int(after) >= newest:
            return HttpResponse(status=204)
        return StreamingHttpResponse(
            _story(uid, int(after)), content_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )

    @extend_schema(request=None, responses={202: RolloutSerializer})
    def pause(self, request: Request, uid: str) -> Response:
        """Release nothing new. What was released goes on."""
        verbs.pause_rollout(uid)
        return _accepted(request, uid)

    @extend_schema(request=None, responses={202: RolloutSerializer})
    def resume(self, request: Request, uid: str) -> Response:
        """Go on. Failures so far do not count any more."""
        verbs.resume_rollout(uid)
        return _accepted(request, uid)

    @extend_schema(request=PromoteSerializer, responses={202: RolloutSerializer})
    def promote(self, request: Request, uid: str) -> Response:
        """Open the gate after a wave."""
        serializer = PromoteSerializer(data=request.data or {})
        serializer.is_valid(raise_exception=True)
        verbs.promote_rollout(uid, wave=serializer.validated_data.get("wave"))
        return _accepted(request, uid)

    @extend_schema(request=None, responses={202: RolloutSerializer})
    def abort(self, request: Request, uid: str) -> Response:
        """Start nothing more. What runs finishes or is undone, as `on_abort` says."""
        verbs.abort_rollout(uid)
        return _accepted(request, uid)

    @extend_schema(request=None, responses={202: RolloutSerializer})
    @idempotent
    def retry(self, request: Request, uid: str) -> Response:
        """Try the failed nodes again: in this rollout, or in a new one if it has ended."""
        return _accepted(request, verbs.retry_rollout(uid))

    @extend_schema(request=None, responses={202: RolloutSerializer})
    def rollback(self, request: Request, uid: str) -> Response:
        """Give every node back what it had before: in this rollout, or in a new one if it has ended."""
        return _accepted(request, verbs.roll_back_rollout(uid))

    @extend_schema(request=RemarkSerializer, responses={202: RolloutSerializer})
    def approve(self, request: Request, uid: str) -> Response:
        """Let it start. Somebody else than the one who asked for it has to."""
        verbs.approve_rollout(uid, by=request.user.get_username(), remark=_remark(request))
        return _accepted(request, uid)

    @extend_schema(request=RemarkSerializer, responses={202: RolloutSerializer})
    def reject(self, request: Request, uid: str) -> Response:
        """End it before it has started."""
        verbs.reject_rollout(uid, remark=_remark(request))
        return _accepted(request, uid)

    @extend_schema(request=CancelSerializer, responses={202: OperationSerializer})
    def cancel(self, request: Request, uid: str, name: str) -> Response:
        """Do nothing (more) on one node; with `force` nobody waits for the node's answer."""
        serializer = CancelSerializer(data=request.data or {})
        serializer.is_valid(raise_exception=True)
        verbs.cancel_node(uid, name, force=serializer.validated_data["force"])
        return Response(selectors.operation_document(selectors.operation(uid, name)), status=202)


def _remark(request: Request) -> str:
    serializer = RemarkSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    remark: str = serializer.validated_data["remark"]
    return remark


class FreezeViewSet(ViewSet):
    """The one switch for everything."""

    permissions = {
        "GET": Permission.VIEW_CLUSTER_MODULES,
        "POST": Permission.MANAGE_CLUSTER_MODULES,
        "DELETE": Permission.MANAGE_CLUSTER_MODULES,
    }

    @extend_schema(responses=FreezeSerializer)
    def retrieve(self, request: Request) -> Response:
        """Whether anything may be released, and if not, why and since when."""
        return Response(selectors.freeze_document())

    @extend_schema(request=ReasonSerializer, responses=FreezeSerializer)
    def create(self, request: Request) -> Response:
        """Release nothing anywhere until this is lifted. What was released goes on."""
        serializer = ReasonSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        verbs.freeze_fleet(serializer.validated_data["reason"])
        return Response(selectors.freeze_document())

    @extend_schema(responses=FreezeSerializer)
    def destroy(self, request: Request) -> Response:
        """Lift it."""
        verbs.thaw_fleet()
        return Response(selectors.freeze_document())


def _accepted(request: Request, uid: str) -> Response:
    document, _, _ = selectors.rollout_document(uid)
    location = request.build_absolute_uri(f"/v2/rollouts/{uid}")
    return Response(json.loads(document), status=202, headers={"Location": location})


def _answer(found: why.Answer) -> Response:
    return Response({**found.document, "events": [selectors.event_document(each) for each in found.events]})


def _document(text: str, etag: str, given: set[str]) -> HttpResponse:
    """The document, or 304 for a client that has it."""
    if not given.isdisjoint({etag, "*"}):
        return HttpResponse(status=304, headers={"ETag": etag})
    return HttpResponse(text, content_type="application/json", headers={"ETag": etag})


def _as_of(request: Request) -> int | None:
    """The position that is asked about, None for now."""
    text = request.query_params.get("as_of")
    if text is None:
        return None
    if "wait" in request.query_params:
        raise InvalidRequestError("as_of: what has been does not change: leave out wait.")
    return history.position_of(text)


def _etags(request: Request) -> set[str]:
    """Those of `If-None-Match`, `*` for any; a proxy that compresses marks them as weak."""
    given = request.headers.get("If-None-Match", "").split(",")
    return {each.strip().removeprefix("W/") for each in given if each.strip()}


def _wait_seconds(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        raise InvalidRequestError(f"wait: must be a number of seconds from 0 to {LONGEST_WAIT_SECONDS:.0f}.")
    return seconds


def _story(uid: str, after: int) -> Iterator[str]:
    """The rollout's events after a position, as they come; ends with the rollout. Reads them only when there are new
    ones, and speaks up when it had nothing to say for a while, however much else is going on."""
    spoke_at = time.monotonic()
    while True:
        position = head()
        _, newest, phase = selectors.rollout_document(uid)
        while after < newest and (batch := selectors.rollout_events(uid, after=after, limit=STREAM_BATCH)):
            after = batch[-1].position
            yield "".join(_sse(each) for each in batch)
            spoke_at = time.monotonic()
        if phase in FINAL_ROLLOUT_PHASES:
            return
        grown = position
        while grown == position:
            grown = wait_for_growth(position, timeout=max(0.0, spoke_at + HEARTBEAT_SECONDS - time.monotonic()))
            if time.monotonic() >= spoke_at + HEARTBEAT_SECONDS:
                spoke_at = time.monotonic()
                yield ": nothing new\n\n"


def _sse(recorded: RecordedEvent) -> str:
    return (
        f"id: {recorded.position}\nevent: {recorded.type}\ndata: {json.dumps(selectors.event_document(recorded))}\n\n"
    )


class NodeViewSet(ViewSet):
    permissions = {
        "GET": Permission.VIEW_ALL_NODES_INFO,
        "PATCH": Permission.UPDATE_NODE,
        "POST": Permission.UPDATE_NODE,
    }

    @extend_schema(responses=page_of(NodeSerializer))
    def list(self, request: Request) -> Response:
        """List nodes by name, each with its modules: what is desired there and what was observed."""
        return paginate(request, selectors.nodes(), key="name", serialize=selectors.node_documents)

    @extend_schema(responses=NodeSerializer, parameters=[AS_OF])
    def retrieve(self, request: Request, name: str) -> Response:
        """One node. As it was, `last_seen` is null: that is not in the log."""
        as_of = _as_of(request)
        return _node(name) if as_of is None else Response(history.node_as_of(name, as_of))

    @extend_schema(request=LabelsSerializer, responses=NodeSerializer)
    def partial_update(self, request: Request, name: str) -> Response:
        """Set the node's labels: all that an operator gave."""
        serializer = LabelsSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        services.label_node(name, serializer.validated_data["labels"])
        return _node(name)

    @extend_schema(request=None, responses=NodeSerializer)
    def drain(self, request: Request, name: str) -> Response:
        """Give it nothing new."""
        services.drain_node(name)
        return _node(name)

    @extend_schema(request=None, responses=NodeSerializer)
    def activate(self, request: Request, name: str) -> Response:
        """End its draining."""
        services.activate_node(name)
        return _node(name)

    @extend_schema(request=None, responses=NodeSerializer)
    def decommission(self, request: Request, name: str) -> Response:
        """Take it out of the fleet. It joins again when its agent is restarted."""
        services.decommission_node(name)
        return _node(name)


def _node(name: str) -> Response:
    (document,) = selectors.node_documents([selectors.node(name)])
    return Response(document)


class ArtifactViewSet(PackageUploadView, ViewSet):
    permissions = {
        "GET": Permission.VIEW_CLUSTER_MODULES,
        "POST": Permission.MANAGE_CLUSTER_MODULES,
        "DELETE": Permission.MANAGE_CLUSTER_MODULES,
    }

    @extend_schema(responses=page_of(ArtifactSerializer))
    def list(self, request: Request) -> Response:
        """List artifacts by name and version, each with its builds."""
        return paginate_by(request, versions_after, key_of=list, serialize=artifact_documents)

    @extend_schema(request=UPLOAD, responses={200: ArtifactSerializer, 201: ArtifactSerializer})
    def create(self, request: Request) -> Response:
        """Upload a package, once for the whole cluster: 201 if it is new, 200 if the same build was there."""
        require_modules_upload_allowed()

        def answer(upload: Upload) -> Response:
            document = artifact_document(upload.module_name, upload.version)
            return Response(document, status=201 if upload.created else 200)

        return self.add_once(request, answer)

    @extend_schema(responses=ArtifactSerializer)
    def retrieve(self, request: Request, module_name: str, version: str) -> Response:
        """One artifact."""
        return Response(artifact_document(module_name, version_in_path(version)))

    @extend_schema(responses={200: dict})
    def destroy(self, request: Request, module_name: str, version: str) -> Response:
        """Delete an artifact that no node has and no rollout needs."""
        delete_artifact(module_name, version_in_path(version), refuse_if_used=selectors.refuse_if_used)
        return Response({})


def version_in_path(text: str) -> int:
    """Raises: `NotFoundError` for what is no version."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise NotFoundError(f"{text} is no version: versions are whole numbers.")
    return int(text)


class LocalArtifactViewSet(PackageUploadView, SeedViewSet):
    """The seed's routes about this node's artifacts."""

    permissions = ArtifactViewSet.permissions

    @extend_schema(responses=LocalArtifactSerializer(many=True))
    def list(self, request: Request) -> Response:
        """List the artifacts on the local node."""
        return Response(selectors.local_artifacts(local.node_of(request.get_host()).name))

    @extend_schema(request=UPLOAD, responses={200: dict})
    def create(self, request: Request) -> Response:
        """Upload an artifact to the local node, and wait until it is there."""
        require_modules_upload_allowed()
        node = local.node_of(request.get_host())
        with self.received_package(request) as package:
            digest = digest_of(request, package.sha256)
            if (stored := stored_response(request, digest)) is not None:
                return stored
            upload = add_build(package)
        local.install(node, upload.module_name, upload.version)
        return keep_response(request, digest, Response({}))

    @extend_schema(responses={200: dict})
    def destroy(self, request: Request, module_name: str, version: str) -> Response:
        """Delete an artifact from the local node, and wait until it is gone."""
        local.remove(local.node_of(request.get_host()), module_name, version_in_path(version))
        return Response({})


class EventViewSet(ViewSet):
    permissions = {"GET": Permission.VIEW_LOGGED_EVENTS}

    @extend_schema(responses=page_of(EventSerializer))
    def list(self, request: Request) -> Response:
        """The audit log: all events in the order in which they were recorded."""

        def fetch(after: Any, limit: int) -> Sequence[RecordedEvent]:
            return read_page(after=after or 0, limit=limit)

        return paginate_by(
            request,
            fetch,
            key_of=lambda each: each.position,
            serialize=lambda rows: [selectors.event_document(each) for each in rows],
        )
