"""`/metrics`, in the text format of Prometheus. The probes are in `health`."""

import hmac

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponse
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import extend_schema
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.authentication import BasicAuthentication, SessionAuthentication, TokenAuthentication
from accounts.permissions import RequiresPermission
from accounts.roles import Permission
from operations.collector import FleetCollector
from operations.measures import REGISTRY

_FLEET = CollectorRegistry(auto_describe=False)
_FLEET.register(FleetCollector())


class Scraper(AnonymousUser):
    """The client with `MODFLEET_METRICS_TOKEN`. It is not a user, and has no other permission."""

    @property
    def is_authenticated(self) -> bool:  # type: ignore[override]
        return True

    def may(self, permission: Permission) -> bool:
        return permission == Permission.VIEW_CLUSTER_INFO


class ScraperAuthentication(BaseAuthentication):
    """The token of the settings. It needs no database: a scrape must still report a database that is down."""

    def authenticate(self, request: Request) -> tuple[Scraper, None] | None:
        expected = settings.ENVIRONMENT.metrics_token
        scheme, _, given = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if not expected or scheme.lower() != "bearer":
            return None
        return (Scraper(), None) if hmac.compare_digest(given.strip().encode(), expected.encode()) else None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="modfleet"'


class ScraperScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ScraperAuthentication
    name = "metricsToken"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "MODFLEET_METRICS_TOKEN"}


class MetricsView(APIView):
    permissions = {"GET": Permission.VIEW_CLUSTER_INFO}
    permission_classes = (RequiresPermission,)
    authentication_classes = (
        ScraperAuthentication,
        BasicAuthentication,
        TokenAuthentication,
        SessionAuthentication,
    )

    @extend_schema(responses={(200, "text/plain"): str})
    def get(self, request: Request) -> HttpResponse:
        """Return metrics for Prometheus: of the fleet, from the database and the broker, and of this process."""
        text = generate_latest(_FLEET) + generate_latest(REGISTRY)
        return HttpResponse(text, content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})
