"""Every answer is JSON, whatever `Accept` says: existing clients send many values."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rest_framework.metadata import BaseMetadata
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.utils.mediatypes import media_type_matches

if TYPE_CHECKING:
    from rest_framework.views import APIView  # it imports this module, by the settings


class AlwaysJson(BaseContentNegotiation):
    """Selects the first renderer of the view: JSON, unless the view has others."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        for parser in parsers:
            if media_type_matches(parser.media_type or "", request.content_type):
                return parser
        return None

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, first.media_type or ""


class NoMetadata(BaseMetadata):
    """OPTIONS answers `{}`: its `Allow` header has the methods."""

    def determine_metadata(self, request: Request, view: "APIView") -> dict[str, str]:
        return {}
