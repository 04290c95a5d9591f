"""Links by which nodes fetch packages. The other routes of artifacts ask for nodes, and are in `rollout`."""

from typing import Any

from django.http import FileResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.permissions import Access
from api.refusals import refuses
from artifacts_app.downloads import InvalidLinkError, PackageGoneError, read_link
from artifacts_app.storage import CHUNK_BYTES, open_package


class _PackageResponse(FileResponse):
    #: Django's 4 KiB cost four times the processor time.
    block_size = CHUNK_BYTES


class DownloadView(APIView):
    """The link itself is the credential."""

    authentication_classes: list[Any] = []
    permissions = {"GET": Access.PUBLIC}
    throttle_classes: list[Any] = []  # all nodes may fetch at once, and from one address
    schema = None

    @refuses(InvalidLinkError, PackageGoneError)
    def get(self, request: Request, signed: str) -> _PackageResponse:
        """The package's bytes."""
        try:
            file = open_package(read_link(signed))
        except FileNotFoundError as error:
            raise PackageGoneError from error
        return _PackageResponse(file, content_type="application/zip")
