"""The OpenAPI document of all routes."""

import threading
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import (
    OpenApiJsonRenderer,
    OpenApiJsonRenderer2,
    OpenApiYamlRenderer,
    OpenApiYamlRenderer2,
)
from drf_spectacular.views import SpectacularAPIView
from rest_framework.negotiation import DefaultContentNegotiation

_making = threading.Lock()


class SharedGenerator(SchemaGenerator):
    """Makes the document once for the process, in one thread: drf-spectacular fails if two threads make their first one at
    the same time, and each takes about a second. It is the same for all requests."""

    document: Any = None

    def get_schema(self, request: Any = None, public: bool = True) -> Any:
        with _making:
            if SharedGenerator.document is None:
                SharedGenerator.document = super().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
            return SharedGenerator.document


class SchemaView(SpectacularAPIView):
    generator_class = SharedGenerator
    content_negotiation_class = DefaultContentNegotiation
    #: The first one is for those who ask for no format: JSON, as everywhere.
    renderer_classes = [OpenApiJsonRenderer2, OpenApiJsonRenderer, OpenApiYamlRenderer, OpenApiYamlRenderer2]
