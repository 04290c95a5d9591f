"""A request whose text is UTF-8, whatever its headers claim."""

from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from django.utils.http import parse_header_parameters


class Utf8Request(WSGIRequest):
    """Django takes any codec of Python that a Content-Type names, also one that is none of text (`bz2_codec`), and
    fails with it while it makes the request: before any view, and before any middleware that could answer."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
