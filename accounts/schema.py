"""Describes operations and their credentials in the OpenAPI document."""

from itertools import groupby
from typing import Any

import httpx
from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter

from accounts.permissions import Access
from api.errors import ApiError
from api.idempotency import KeyReusedError
from api.refusals import codes_of, refusals_of
from api.statuses import status_of
from api.vendor import DOCUMENTED, VendorViewSet

#: The tag of a path is that of the first matching prefix.
TAGS = (
    ("/v2/local", "Local node"),
    ("/v2/modules/user-defined/artifacts", "Artifacts"),
    ("/v2/modules/user-defined", "Modules"),
    ("/v2/rollouts", "Rollouts"),
    ("/v2/freeze", "Rollouts"),
    ("/v2/ignored-replicas", "Nodes"),
    ("/v2/nodes", "Nodes"),
    ("/v2/join-tokens", "Nodes"),
    ("/v2/enrolment", "Nodes"),
    ("/v2/events", "Events"),
    ("/v2/webhooks", "Webhooks"),
    ("/v1/users", "Users"),
    ("/v1/cluster", "Cluster"),
    ("/", "As the vendor's"),
)


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    OpenApiParameter.HEADER,
    description="For 24 hours, a repeated request with the same key is not carried out again, and gets the same answer",
)


class StrictSchema(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]  # the library's subclass hook
    target_class = "api.fields.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)  # noqa: SLF001  # as the library's documents say
        return {**schema, "additionalProperties": False}


class BasicScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # the library's subclass hook
    target_class = "accounts.authentication.BasicAuthentication"
    name = "basic"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "basic"}


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # the library's subclass hook
    target_class = "accounts.authentication.TokenAuthentication"
    name = ["token", "vendorToken"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The token from /v1/users/authorize",
            },
            {
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "The same token, in the form of the vendor's clients: `JWT`, a space, and the token",
            },
        ]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        return [{name: []} for name in self.name]


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # the library's subclass hook
    target_class = "accounts.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}


class OperationSchema(AutoSchema):
    """Describes an operation: its tag, a summary, an example, and every error that it may return."""

    view: Any

    def get_tags(self) -> list[str]:
        return [next(tag for beginning, tag in TAGS if self.path.startswith(beginning))]

    def get_summary(self) -> str:
        return self._words().partition(". ")[0].rstrip(".")

    def get_description(self) -> str:  # type: ignore[override]  # the library overrides DRF's too
        return self._words()

    def _words(self) -> str:
        return " ".join((self._handler().__doc__ or "").split())

    def _status_of(self, error: type[ApiError]) -> int:
        status = status_of(error)
        return int(DOCUMENTED.get(status, status) if isinstance(self.view, VendorViewSet) else status)

    def _handler(self) -> Any:
        return getattr(self.view, getattr(self.view, "action", None) or self.method.lower())

    def get_auth(self) -> list[dict[str, list[str]]]:
        auth: list[dict[str, list[str]]] = super().get_auth()
        return [*auth, {}] if self._is_public() else auth

    def get_override_parameters(self) -> list[Any]:
        parameters = super().get_override_parameters()
        takes_key = KeyReusedError in getattr(self._handler(), "refusals", ())
        return [*parameters, IDEMPOTENCY_KEY] if takes_key else parameters

    def _is_public(self) -> bool:
        return getattr(self.view, "permissions", {}).get(self.method, Access.PUBLIC) is Access.PUBLIC

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        takes_body = self.method in {"POST", "PUT", "PATCH"}
        errors = refusals_of(self._handler(), self.method, public=self._is_public(), takes_body=takes_body)
        for status, group in groupby(errors, key=self._status_of):
            listed = list(group)
            former = bodies.get(str(status))
            codes = sorted(codes_of(listed) | set(former["x-error-codes"] if former else ()))
            bodies[str(status)] = _refusal(status, codes, listed[0])
        return dict(sorted(bodies.items()))


def _refusal(status: int, codes: list[str], error: type[ApiError]) -> dict[str, Any]:
    words = " ".join((error.__doc__ or "").split())
    schema = {"allOf": [{"$ref": "#/components/schemas/Error"}, {"properties": {"error_code": {"enum": codes}}}]}
    example = {"error_code": error.code, "description": words}
    body = {
        # Not from `http`: its phrases differ between Python versions.
        "description": f"{httpx.codes.get_reason_phrase(status)}: {', '.join(codes)}",
        "content": {"application/json": {"schema": schema, "example": example}},
        "x-error-codes": codes,
    }
    if header := {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After", 507: "Retry-After"}.get(status):
        body["headers"] = {header: {"schema": {"type": "string"}, "required": True}}
    return body


def add_error(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add the component that all errors share."""
    text = {"type": "string"}
    properties = {"error_code": {**text, "description": "Stable, for machines"}, "description": text}
    result["components"]["schemas"]["Error"] = {
        "type": "object",
        "properties": properties,
        "required": ["error_code", "description"],
    }
    return result
