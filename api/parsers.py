"""Request bodies: only JSON, in UTF-8, with a limit of size and depth, whatever the headers say."""

from collections.abc import Mapping
from typing import IO, Any

from django.utils.http import parse_header_parameters
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser

from api import strict_json
from api.errors import InvalidJsonError, PayloadTooLargeError

#: The largest JSON body, bytes.
MAX_BYTES = 2_000_000


class StrictJSONParser(BaseParser):
    """Parses JSON. Raises: `InvalidJsonError`, or the view's own `invalid_json` error, if the body is not JSON."""

    media_type = "application/json"
    max_bytes = MAX_BYTES

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        _, parameters = parse_header_parameters(media_type or "")
        if parameters.get("charset", "utf-8").lower() not in {"utf-8", "utf8"}:
            raise UnsupportedMediaType(media_type or "", detail="JSON must be UTF-8.")
        view = (parser_context or {}).get("view")
        try:
            return strict_json.parse(read_bounded(stream, self.max_bytes), max_bytes=self.max_bytes)
        except strict_json.InvalidJson as error:
            raise getattr(view, "invalid_json", InvalidJsonError)(f"The body {error}.") from error


class SmallJSONParser(StrictJSONParser):
    """The same for requests without credentials, which have no reason to be large."""

    max_bytes = 64_000


def read_bounded(stream: IO[bytes], limit: int) -> bytes:
    """Read the whole stream. Raises: `PayloadTooLargeError`, after at most one byte more than `limit`."""
    chunks, left = [], limit + 1
    while left and (chunk := stream.read(left)):
        chunks.append(chunk)
        left -= len(chunk)
    if not left:
        raise PayloadTooLargeError(f"A JSON body may have at most {limit} bytes.")
    return b"".join(chunks)
