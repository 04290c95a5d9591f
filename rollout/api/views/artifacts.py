"""Artifacts of the whole cluster, and the seed's routes about those of the local node."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.errors import ModulesUploadDisabledError
from accounts.roles import Permission
from accounts.selectors import require_modules_upload_allowed
from api.errors import NotFoundError, StorageFullError, StorageUnavailableError
from api.fields import NothingSerializer
from api.idempotency import KeyReusedError, digest_of, keep_response, stored_response
from api.pagination import Listing, page_of, paginate
from api.refusals import refuses
from api.seed import SeedViewSet
from artifacts_app.errors import (
    ArtifactExistsError,
    ArtifactNotFoundError,
    ArtifactTooLargeError,
    InvalidArtifactMetadataError,
    NoModuleError,
    UnreadableArtifactError,
)
from artifacts_app.filters import ArtifactFilters
from artifacts_app.selectors import artifact_document, artifact_documents, uploaded_versions
from artifacts_app.services import Upload, add_build, delete_artifact
from artifacts_app.uploads import PackageUploadView
from modules_app.errors import MetadataMismatchError, ModuleInUseError, ModuleNameTakenError, NoSuchModuleError
from rollout.api.serializers.artifacts import ArtifactSerializer, LocalArtifactSerializer, PackageSerializer
from rollout.domain.errors import (
    ArtifactInUseError,
    FleetFrozenError,
    NodeRefusedError,
    NodeUnreachableError,
    NoLocalNodeError,
    RolloutInProgressError,
)
from rollout.queries.modules import local_artifacts
from rollout.services import local

UPLOAD = {"multipart/form-data": PackageSerializer}

ARTIFACTS = Listing(
    orders={"module_name": ("module_name", "version"), "version": ("version", "module_name")},
    default="module_name",
    filters=ArtifactFilters,
)


class ArtifactViewSet(PackageUploadView, ViewSet):
    permissions = {
        "GET": Permission.VIEW_CLUSTER_MODULES,
        "POST": Permission.MANAGE_CLUSTER_MODULES,
        "DELETE": Permission.MANAGE_CLUSTER_MODULES,
    }

    @extend_schema(parameters=ARTIFACTS.parameters, responses=page_of(ArtifactSerializer))
    def list(self, request: Request) -> Response:
        """List artifacts by name and version, each with its builds."""
        return paginate(request, uploaded_versions(), ARTIFACTS, serialize=artifact_documents)

    @extend_schema(request=UPLOAD, responses={200: ArtifactSerializer, 201: ArtifactSerializer})
    @refuses(
        ModulesUploadDisabledError,
        NoModuleError,
        UnreadableArtifactError,
        InvalidArtifactMetadataError,
        ArtifactTooLargeError,
        StorageFullError,
        StorageUnavailableError,
        ArtifactExistsError,
        MetadataMismatchError,
        ModuleNameTakenError,
        KeyReusedError,
    )
    def create(self, request: Request) -> Response:
        """Upload a package, once for the whole cluster: 201 if it is new, 200 if the same build was there."""
        require_modules_upload_allowed()

        def answer(upload: Upload) -> Response:
            document = artifact_document(upload.module_name, upload.version)
            return Response(document, status=201 if upload.created else 200)

        return self.add_once(request, answer)

    @extend_schema(responses=ArtifactSerializer)
    @refuses(ArtifactNotFoundError, NotFoundError)
    def retrieve(self, request: Request, module_name: str, version: str) -> Response:
        """One artifact."""
        return Response(artifact_document(module_name, version_in_path(version)))

    @extend_schema(responses={200: NothingSerializer})
    @refuses(ArtifactNotFoundError, NotFoundError, ArtifactInUseError)
    def destroy(self, request: Request, module_name: str, version: str) -> Response:
        """Delete an artifact that no node has and no rollout needs."""
        delete_artifact(module_name, version_in_path(version))
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
    @refuses(NoLocalNodeError)
    def list(self, request: Request) -> Response:
        """List the artifacts on the local node."""
        return Response(local_artifacts(local.node_of(request.get_host()).name))

    @extend_schema(request=UPLOAD, responses={200: NothingSerializer})
    @refuses(
        ModulesUploadDisabledError,
        NoModuleError,
        UnreadableArtifactError,
        InvalidArtifactMetadataError,
        ArtifactTooLargeError,
        StorageFullError,
        StorageUnavailableError,
        ArtifactExistsError,
        MetadataMismatchError,
        ModuleNameTakenError,
        KeyReusedError,
        NoLocalNodeError,
        RolloutInProgressError,
        NodeRefusedError,
        NodeUnreachableError,
        FleetFrozenError,
    )
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

    @extend_schema(responses={200: NothingSerializer})
    @refuses(
        ArtifactNotFoundError,
        NoSuchModuleError,
        NotFoundError,
        NoLocalNodeError,
        ModuleInUseError,
        RolloutInProgressError,
        NodeRefusedError,
        NodeUnreachableError,
        FleetFrozenError,
    )
    def destroy(self, request: Request, module_name: str, version: str) -> Response:
        """Delete an artifact from the local node, and wait until it is gone."""
        local.remove(local.node_of(request.get_host()), module_name, version_in_path(version))
        return Response({})
