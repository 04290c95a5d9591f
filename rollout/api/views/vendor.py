"""The vendor's neighbouring routes, for tools that exist: modules, actions and nodes as Redis Enterprise shows them."""

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.errors import ModulesUploadDisabledError
from accounts.roles import Permission
from accounts.selectors import require_modules_upload_allowed
from api.errors import ApiError, InvalidRequestError, NotFoundError, StorageFullError, StorageUnavailableError
from api.fields import rfc3339
from api.idempotency import KeyReusedError
from api.refusals import refuses
from artifacts_app.errors import (
    ArtifactExistsError,
    ArtifactTooLargeError,
    InvalidArtifactMetadataError,
    NoModuleError,
    UnreadableArtifactError,
)
from artifacts_app.selectors import artifact_document, platforms_of
from artifacts_app.serializers import UPLOAD
from artifacts_app.services import Upload
from artifacts_app.uploads import PackageUploadView
from modules_app.errors import (
    MetadataMismatchError,
    ModuleExistsError,
    ModuleInUseError,
    ModuleNameTakenError,
    NoSuchModuleError,
    UnknownModuleError,
)
from modules_app.selectors import document_of, module_document, module_key, modules
from modules_app.serializers import ModuleObjectSerializer
from rollout.api.serializers.vendor import (
    ActionSerializer,
    ActionsSerializer,
    StartedSerializer,
    StartedUploadSerializer,
    VendorModuleSerializer,
    VendorNodeSerializer,
)
from rollout.domain.errors import (
    CommandsInUseError,
    DependenciesNotSupportedError,
    DependencyCycleError,
    FleetFrozenError,
    InvalidModulePackageError,
    ModuleNeededError,
    ModuleThereError,
    NodeNotFoundError,
    RolloutInProgressError,
    RolloutNotFoundError,
)
from rollout.domain.request import WHERE_ONLINE, RolloutRequest
from rollout.domain.rollout.events import Origin, RolloutPhase
from rollout.messages import Action, Activation, Reason
from rollout.models import Node, Rollout
from rollout.projections.rollout_document import outcome_of
from rollout.queries.freeze import refuse_if_frozen
from rollout.queries.nodes import node_rows, node_with_position
from rollout.queries.rollouts import rollout_row, rollout_rows, shortfalls
from rollout.services.start_or_join import start_or_join

#: The vendor's status for each phase. `_status` has the exceptions.
STATUS_OF = {
    RolloutPhase.PLANNED: "queued",
    RolloutPhase.PENDING_APPROVAL: "queued",
    RolloutPhase.SCHEDULED: "queued",
    RolloutPhase.RUNNING: "running",
    RolloutPhase.PAUSED: "running",
    RolloutPhase.ROLLING_BACK: "running",
    RolloutPhase.ABORTING: "cancelling",
    RolloutPhase.SUCCEEDED: "completed",
    RolloutPhase.COMPLETED_WITH_FAILURES: "failed",
    RolloutPhase.FAILED: "failed",
    RolloutPhase.ABORTED: "cancelled",
    RolloutPhase.ROLLED_BACK: "cancelled",
    RolloutPhase.ROLLBACK_FAILED: "failed",
    RolloutPhase.SUPERSEDED: "cancelled",
    RolloutPhase.REJECTED: "cancelled",
}
#: Reasons of an end that a person caused; empty if a person canceled it on all nodes. All others end as `failed`.
_BY_PERSON = ("", Reason.MANUAL)


EVEN_IF_USED = OpenApiParameter(
    "even_if_used",
    str,
    enum=["true", "false"],
    default="false",
    description="`true` removes the module even if its commands were called in the last 10 minutes",
)
#: Digits of a node's uid, which is a position of the log.
LONGEST_UID = 18
#: The errors that both uploads have in common.
_REFUSALS: tuple[type[ApiError], ...] = (
    ModulesUploadDisabledError,
    FleetFrozenError,
    NoModuleError,
    ArtifactTooLargeError,
    StorageFullError,
    StorageUnavailableError,
    KeyReusedError,
    RolloutInProgressError,
    DependencyCycleError,
)


class VendorModuleViewSet(PackageUploadView, ViewSet):
    permissions = {
        "GET": Permission.VIEW_CLUSTER_MODULES,
        "POST": Permission.UPDATE_CLUSTER,
        "DELETE": Permission.UPDATE_CLUSTER,
    }

    @extend_schema(responses=VendorModuleSerializer(many=True))
    def list(self, request: Request) -> Response:
        """List module objects with their platforms."""
        rows = list(modules())
        platforms = platforms_of([(row.module_name, row.version) for row in rows])
        return Response(
            [{**document_of(row), "platforms": platforms.get((row.module_name, row.version), {})} for row in rows]
        )

    @extend_schema(responses=VendorModuleSerializer)
    @refuses(UnknownModuleError)
    def retrieve(self, request: Request, uid: str) -> Response:
        """Return a module object with its platforms."""
        document = module_document(uid)
        key = (document["module_name"], document["version"])
        return Response({**document, "platforms": platforms_of([key]).get(key, {})})

    @extend_schema(request=UPLOAD, responses={200: StartedUploadSerializer})
    @refuses(
        *_REFUSALS,
        UnreadableArtifactError,
        InvalidArtifactMetadataError,
        ArtifactExistsError,
        MetadataMismatchError,
        ModuleNameTakenError,
        ModuleExistsError,
    )
    def create(self, request: Request) -> Response:
        """Upload a package, register its module, and install its files on every node: poll the `action_uid`.

        Nodes that are offline get the files when they are back.
        """
        _require_uploads()
        return self.add_once(request, lambda upload: Response(_put_on_every_node(upload)), register=True)

    @extend_schema(request=UPLOAD, responses={200: ModuleObjectSerializer})
    @refuses(
        *_REFUSALS, ModuleNameTakenError, DependenciesNotSupportedError, InvalidModulePackageError, ModuleThereError
    )
    def create_v1(self, request: Request) -> Response:
        """Do the same as `POST /v2/modules`, for a module without dependencies. The answer has no `action_uid`;
        `GET /v1/actions` lists the action. Deprecated by the vendor."""
        _require_uploads()

        def answer(upload: Upload) -> Response:
            if artifact_document(upload.module_name, upload.version)["dependencies"]:
                raise DependenciesNotSupportedError
            document = _put_on_every_node(upload)
            del document["action_uid"]
            return Response(document)

        try:
            return self.add_once(request, answer, register=True)
        except (UnreadableArtifactError, InvalidArtifactMetadataError, MetadataMismatchError) as error:
            raise InvalidModulePackageError(str(error)) from error
        except (ArtifactExistsError, ModuleExistsError) as error:
            raise ModuleThereError(str(error)) from error

    @extend_schema(responses={200: StartedSerializer}, parameters=[EVEN_IF_USED])
    @refuses(NoSuchModuleError, RolloutInProgressError, ModuleNeededError, CommandsInUseError, FleetFrozenError)
    def destroy(self, request: Request, uid: str) -> Response:
        """Remove the module from every node, then delete its object and its artifact: poll the `action_uid`.

        If an offline or draining node still has the module, object and artifact stay, and the action says so. Refused
        while the module's commands are in use, unless `even_if_used=true`.
        """
        even_if_used = request.query_params.get("even_if_used", "false")
        if even_if_used not in {"true", "false"}:
            raise InvalidRequestError("even_if_used: must be true or false.")
        refuse_if_frozen()
        module_name, version = module_key(uid)
        action_uid = start_or_join(
            RolloutRequest(
                action=Action.REMOVE,
                module_name=module_name,
                version=version,
                strategy=WHERE_ONLINE,
                origin=Origin.VENDOR,
                may_be_empty=True,
                purge=True,
                even_if_used=even_if_used == "true",
            )
        )
        return Response({"action_uid": action_uid})


def _require_uploads() -> None:
    """Raises: `ModulesUploadDisabledError`, `FleetFrozenError`."""
    require_modules_upload_allowed()
    refuse_if_frozen()


def _put_on_every_node(upload: Upload) -> dict[str, Any]:
    """Start the rollout. Return the module object with the `action_uid`."""
    action_uid = start_or_join(
        RolloutRequest(
            action=Action.INSTALL,
            module_name=upload.module_name,
            version=upload.version,
            activation=Activation.FILES,
            strategy=WHERE_ONLINE,
            origin=Origin.VENDOR,
            may_be_empty=True,
        )
    )
    return {**module_document(upload.module_uid), "action_uid": action_uid}


class ActionViewSet(ViewSet):
    permissions = {"GET": Permission.VIEW_STATUS_OF_CLUSTER_ACTION}

    @extend_schema(operation_id="v1_actions_list", responses={200: ActionsSerializer})
    def list(self, request: Request) -> Response:
        """List all actions, which are rollouts, newest first."""
        return Response({"actions": _actions(list(rollout_rows())), "state-machines": []})

    @extend_schema(responses=ActionSerializer)
    @refuses(NotFoundError)
    def retrieve(self, request: Request, uid: str) -> Response:
        """Return an action."""
        try:
            (action,) = _actions([rollout_row(uid)])
        except RolloutNotFoundError as error:
            raise NotFoundError("There is no action with this uid.") from error
        return Response(action)


def _actions(rollouts: Sequence[Rollout]) -> list[dict[str, Any]]:
    ended = [each for each in rollouts if RolloutPhase(each.phase).is_final]
    short = shortfalls([each for each in ended if each.succeeded < each.total])
    return [_action(each, short.get(each.uid, "")) for each in rollouts]


def _status(rollout: Rollout) -> str:
    """Return the vendor's status: `completed` if the request was carried out, `cancelled` if a person stopped it."""
    phase = RolloutPhase(rollout.phase)
    if phase == RolloutPhase.ROLLED_BACK and rollout.rollback_of:
        return "completed"
    is_kept = phase == RolloutPhase.SUCCEEDED and rollout.message  # a deletion that kept the module
    is_given_up = phase in {RolloutPhase.ABORTED, RolloutPhase.ROLLED_BACK} and rollout.reason not in _BY_PERSON
    return "failed" if is_kept or is_given_up else STATUS_OF[phase]


def _action(rollout: Rollout, shortfall: str) -> dict[str, Any]:
    # Clients decode progress, node_uid and task_id as strings, whatever the vendor's table of types says.
    status = _status(rollout)
    final = rollout.total - rollout.scheduled - rollout.queued - rollout.running
    document: dict[str, Any] = {
        "action_uid": rollout.uid,
        "name": f"{'roll_back' if rollout.rollback_of else rollout.action}_module",
        "status": status,
        "progress": str(100 * final // rollout.total if rollout.total else 100),
        "node_uid": "",
        "task_id": rollout.uid,
        "object_name": f"module:{rollout.module_name}:{rollout.version}",
        "creation_time": rfc3339(rollout.created_at),
    }
    message = " ".join(filter(None, (rollout.message, shortfall, rollout.left_alone.get("text"))))
    if status == "failed":
        is_kept = rollout.phase == RolloutPhase.SUCCEEDED
        code = rollout.phase if rollout.reason in _BY_PERSON else rollout.reason
        document["error_code"] = ModuleInUseError.code if is_kept else code
    if RolloutPhase(rollout.phase).is_final and (message or status == "failed"):
        document["error_message"] = message or outcome_of(rollout)
    return document


class VendorNodeViewSet(ViewSet):
    permissions = {"GET": Permission.VIEW_ALL_NODES_INFO}

    @extend_schema(responses=VendorNodeSerializer(many=True))
    def list(self, request: Request) -> Response:
        """List nodes."""
        return Response([_node(row) for row in node_rows()])

    @extend_schema(responses=VendorNodeSerializer)
    @refuses(NodeNotFoundError)
    def retrieve(self, request: Request, uid: str) -> Response:
        """Return a node."""
        if not (uid.isascii() and uid.isdigit() and len(uid) <= LONGEST_UID):
            raise NodeNotFoundError(
                "A node's uid is a whole number, as GET /v1/nodes lists it. /v2/nodes/NAME takes names."
            )
        return Response(_node(node_with_position(int(uid))))


def _node(row: Node) -> dict[str, Any]:
    return {
        "uid": row.joined_position,
        "name": row.name,
        "addr": row.api_hosts[0] if row.api_hosts else "",
        "status": {"online": "active", "draining": "active"}.get(row.phase, "down"),
        "architecture": row.platform.rpartition("/")[2],
        "os_version": row.operating_system,
        "software_version": row.server_version,
    }
