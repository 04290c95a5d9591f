"""The artifacts of the cluster, and the links by which nodes fetch packages."""

from typing import Any

from django.http import FileResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from accounts.errors import ModulesUploadDisabledError
from accounts.permissions import Access
from accounts.roles import Permission
from accounts.selectors import require_modules_upload_allowed
from api.errors import NotFoundError, StorageFullError, StorageUnavailableError
from api.fields import NothingSerializer
from api.idempotency import KeyReusedError
from api.pagination import Listing, page_of, paginate
from api.refusals import refuses
from artifacts_app.downloads import InvalidLinkError, PackageGoneError, read_link
from artifacts_app.errors import (
    ArtifactExistsError,
    ArtifactInUseError,
    ArtifactNotFoundError,
    ArtifactTooLargeError,
    InvalidArtifactMetadataError,
    NoModuleError,
    UnreadableArtifactError,
)
from artifacts_app.filters import ArtifactFilters
from artifacts_app.selectors import artifact_document, artifact_documents, uploaded_versions
from artifacts_app.serializers import UPLOAD, ArtifactSerializer
from artifacts_app.services import Upload, delete_artifact
from artifacts_app.storage import CHUNK_BYTES, open_package
from artifacts_app.uploads import PackageUploadView
from modules_app.errors import MetadataMismatchError, ModuleNameTakenError

ARTIFACTS = Listing(
    orders={"module_name": ("module_name", "version"), "version": ("version", "module_name")},
    default="module_name",
    filters=ArtifactFilters,
)
#: The errors of each route that receives a package.
UPLOAD_REFUSALS = (
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
    @refuses(*UPLOAD_REFUSALS)
    def create(self, request: Request) -> Response:
        """Upload a package, once for the whole cluster: 201 if it is new, 200 if the same build exists."""
        require_modules_upload_allowed()

        def answer(upload: Upload) -> Response:
            document = artifact_document(upload.module_name, upload.version)
            return Response(document, status=201 if upload.created else 200)

        return self.add_once(request, answer)

    @extend_schema(responses=ArtifactSerializer)
    @refuses(ArtifactNotFoundError, NotFoundError)
    def retrieve(self, request: Request, module_name: str, version: str) -> Response:
        """Get an artifact."""
        return Response(artifact_document(module_name, version_in_path(version)))

    @extend_schema(responses={200: NothingSerializer})
    @refuses(ArtifactNotFoundError, NotFoundError, ArtifactInUseError)
    def destroy(self, request: Request, module_name: str, version: str) -> Response:
        """Delete an artifact. No node may have it, and no rollout may need it."""
        delete_artifact(module_name, version_in_path(version))
        return Response({})


def version_in_path(text: str) -> int:
    """Return the version. Raises: `NotFoundError` if `text` is not one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise NotFoundError(f"{text} is not a version: versions are whole numbers.")
    return int(text)


class _PackageResponse(FileResponse):
    #: Django's 4 KiB cost four times the processor time.
    block_size = CHUNK_BYTES


class DownloadView(APIView):
    """The credential is the link, with the proof that the client is its node."""

    authentication_classes: list[Any] = []
    permissions = {"GET": Access.PUBLIC}
    throttle_classes: list[Any] = []  # all nodes may fetch at once, and from one address
    schema = None

    @refuses(InvalidLinkError, PackageGoneError)
    def get(self, request: Request, signed: str) -> _PackageResponse:
        """Download the package."""
        try:
            file = open_package(read_link(signed, proof=request.headers.get("Modfleet-Proof", "")))
        except FileNotFoundError as error:
            raise PackageGoneError from error
        return _PackageResponse(file, content_type="application/zip")
