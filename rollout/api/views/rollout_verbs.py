"""The verbs of `/v2/rollouts/{uid}`: pause, resume, promote, abort, retry, rollback, failback, approve, reject, cancel."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.roles import Permission
from accounts.selectors import uid_of
from api.idempotency import KeyReusedError, idempotent
from api.refusals import refuses
from rollout.api.serializers.rollouts import OperationSerializer, RolloutSerializer
from rollout.api.serializers.verbs import CancelSerializer, PromoteSerializer, RemarkSerializer
from rollout.api.views.answers import PLAN_REFUSALS, accepted, operation_document, origin_of
from rollout.api.views.documents import LOCATION
from rollout.domain.errors import (
    MissingDependencyError,
    NodeNotFoundError,
    NotGatedError,
    NothingToFailBackError,
    NothingToRetryError,
    NothingToRollBackError,
    OneWayError,
    OperationFinalError,
    RollbackOfAdoptionError,
    RollbackOfRollbackError,
    RolloutFinalError,
    RolloutNotFoundError,
    SecondPersonError,
    WrongPhaseError,
)
from rollout.services.failback import fail_back_rollout
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import (
    abort_rollout,
    approve_rollout,
    cancel_node,
    pause_rollout,
    promote_rollout,
    reject_rollout,
    resume_rollout,
    retry_rollout,
)


class RolloutVerbViewSet(ViewSet):
    permissions = {"POST": Permission.MANAGE_CLUSTER_MODULES}

    @extend_schema(request=None, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @refuses(RolloutNotFoundError, RolloutFinalError, WrongPhaseError)
    def pause(self, request: Request, uid: str) -> Response:
        """Pause the rollout: release no more nodes. Operations in progress continue."""
        pause_rollout(uid)
        return accepted(request, uid)

    @extend_schema(request=None, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @refuses(RolloutNotFoundError, RolloutFinalError, WrongPhaseError)
    def resume(self, request: Request, uid: str) -> Response:
        """Resume the rollout. Failures so far no longer count."""
        resume_rollout(uid)
        return accepted(request, uid)

    @extend_schema(request=PromoteSerializer, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @refuses(RolloutNotFoundError, RolloutFinalError, NotGatedError, WrongPhaseError)
    def promote(self, request: Request, uid: str) -> Response:
        """Open the gate after a wave, and accept that a one-way change cannot be rolled back."""
        serializer = PromoteSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        promote_rollout(uid, wave=serializer.validated_data.get("wave"))
        return accepted(request, uid)

    @extend_schema(request=None, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @refuses(RolloutNotFoundError, RolloutFinalError, WrongPhaseError)
    def abort(self, request: Request, uid: str) -> Response:
        """Abort the rollout: release no more nodes. Operations in progress finish or are undone, as `on_abort` says."""
        abort_rollout(uid)
        return accepted(request, uid)

    @extend_schema(request=None, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @idempotent
    @refuses(
        *PLAN_REFUSALS,
        MissingDependencyError,
        RolloutNotFoundError,
        NothingToRetryError,
        WrongPhaseError,
        KeyReusedError,
    )
    def retry(self, request: Request, uid: str) -> Response:
        """Retry the failed nodes: in this rollout, or in a new one if it has ended."""
        return accepted(request, retry_rollout(uid, origin=origin_of(request)))

    @extend_schema(request=None, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @refuses(
        *PLAN_REFUSALS,
        RolloutNotFoundError,
        NothingToRollBackError,
        RollbackOfRollbackError,
        RollbackOfAdoptionError,
        OneWayError,
        WrongPhaseError,
    )
    def rollback(self, request: Request, uid: str) -> Response:
        """Restore on every node what it had before: in this rollout, or in a new one if it has ended."""
        return accepted(request, roll_back_rollout(uid, origin=origin_of(request)))

    @extend_schema(request=None, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @refuses(RolloutNotFoundError, NothingToFailBackError, WrongPhaseError)
    def failback(self, request: Request, uid: str) -> Response:
        """Make each master that gave its role away in this finished rollout the master again, in a new rollout."""
        return accepted(request, fail_back_rollout(uid, origin=origin_of(request)))

    @extend_schema(request=RemarkSerializer, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @refuses(RolloutNotFoundError, RolloutFinalError, WrongPhaseError, SecondPersonError)
    def approve(self, request: Request, uid: str) -> Response:
        """Approve the rollout, so that it can start. The user who started it cannot approve it."""
        approve_rollout(uid, by=uid_of(request.user), remark=_remark(request))
        return accepted(request, uid)

    @extend_schema(request=RemarkSerializer, responses={202: RolloutSerializer}, parameters=[LOCATION])
    @refuses(RolloutNotFoundError, RolloutFinalError, WrongPhaseError)
    def reject(self, request: Request, uid: str) -> Response:
        """Reject the rollout before it starts."""
        reject_rollout(uid, remark=_remark(request))
        return accepted(request, uid)

    @extend_schema(request=CancelSerializer, responses={202: OperationSerializer}, parameters=[LOCATION])
    @refuses(RolloutNotFoundError, NodeNotFoundError, OperationFinalError)
    def cancel(self, request: Request, uid: str, name: str) -> Response:
        """Cancel the rollout on one node. With `force`, do not wait for the node's answer."""
        serializer = CancelSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        cancel_node(uid, name, force=serializer.validated_data["force"])
        location = request.build_absolute_uri(f"/v2/rollouts/{uid}/nodes/{name}")
        return Response(operation_document(uid, name), status=202, headers={"Location": location})


def _remark(request: Request) -> str:
    serializer = RemarkSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    remark: str = serializer.validated_data["remark"]
    return remark
