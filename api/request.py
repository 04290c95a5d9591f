"""A request with UTF-8 text, whatever its headers say."""

from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from django.utils.http import parse_header_parameters


class Utf8Request(WSGIRequest):
    """Ignores the charset in Content-Type. Django would use any codec of Python, also one that is not for text
    (`bz2_codec`), and fail before any view or middleware could answer."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
