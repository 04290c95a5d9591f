"""Receives a package: checks credentials and size first, then streams the body to a spool, never whole in memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http import UnreadablePostError
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.throttles import RequestThrottle, UploadThrottle
from api.body import ENVELOPE_BYTES
from api.errors import ApiError
from api.idempotency import digest_of, store_response, stored_response
from artifacts_app.errors import ArtifactTooLargeError, NoModuleError
from artifacts_app.services import Upload, add_build
from artifacts_app.storage import CHUNK_BYTES, Spool
from eventstore import ConcurrencyError

FIELD = "module"


class PackageUploadView(APIView):
    """A view that receives a package. Its handler calls `received_package`, or `add_once` to record it too."""

    parser_classes = [MultiPartParser]
    throttle_classes = [RequestThrottle, UploadThrottle]

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        # Before authentication: that of the session reads the form's fields, and so the body.
        self._handler = PackageHandler(request)
        request.upload_handlers = [self._handler]
        return super().initialize_request(request, *args, **kwargs)

    @contextmanager
    def received_package(self, request: Request) -> Iterator[Spool]:
        """Give the package of the request, and delete its temporary file afterwards.

        Raises: `NoModuleError`, `ArtifactTooLargeError`.
        """
        refuse_too_large(request.META)
        try:
            try:
                request.data  # noqa: B018  # reads the body
            except (ParseError, UnsupportedMediaType, SuspiciousOperation, UnreadablePostError) as error:
                raise NoModuleError from error
            if self._handler.spool is None:
                raise NoModuleError
            yield self._handler.spool
        finally:
            self._handler.close()

    def add_once(self, request: Request, answer: Callable[[Upload], Response], *, register: bool = False) -> Response:
        """Record the package, and return the response of `answer`. It is stored under the request's Idempotency-Key, in the
        same transaction. If there is a stored response, return that and record nothing.

        Raises: what `received_package`, `add_build` and `answer` raise, `api.idempotency.KeyReusedError`.
        """
        with self.received_package(request) as package:
            digest = digest_of(request, package.sha256)
            if (stored := stored_response(request, digest)) is not None:
                return stored
            answers: list[Response] = []

            def answer_and_keep(upload: Upload) -> None:
                answers.append(answer(upload))
                store_response(request, digest, answers[-1])

            try:
                add_build(package, register=register, also=answer_and_keep)
            except (ApiError, ConcurrencyError):
                # Perhaps it was refused only because the same request has just done the work.
                if (stored := stored_response(request, digest)) is not None:
                    return stored
                raise
        return answers[-1]


def refuse_too_large(meta: Mapping[str, Any]) -> None:
    """Check the length in the request's headers. Raises: `ArtifactTooLargeError`."""
    try:
        declared = int(meta.get("CONTENT_LENGTH") or 0)
    except ValueError:  # such a body counts as empty
        return
    if declared > settings.ENVIRONMENT.max_upload_bytes + ENVELOPE_BYTES:
        raise _too_large()


class PackageHandler(FileUploadHandler):
    """Writes a form's package to a spool while the form is read. The creator must close it."""

    chunk_size = CHUNK_BYTES

    def __init__(self, request: Any) -> None:
        super().__init__(request)
        self.spool: Spool | None = None

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        if self.field_name != FIELD or self.spool is not None:
            raise SkipFile
        self.spool = Spool()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if self.spool is None:
            return
        self.spool.write(raw_data)
        if self.spool.size > settings.ENVIRONMENT.max_upload_bytes:
            raise _too_large()

    def file_complete(self, file_size: int) -> None:
        return None

    def close(self) -> None:
        if self.spool is not None:
            self.spool.close()


def _too_large() -> ArtifactTooLargeError:
    return ArtifactTooLargeError(f"A package may have at most {settings.ENVIRONMENT.max_upload_bytes} bytes.")
