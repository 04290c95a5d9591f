"""`/v2/enrolment`: a host exchanges a join token for a node's identity. No user is needed."""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.permissions import Access
from api.client_address import client_address
from api.parsers import SmallJSONParser
from api.rate_limits import RateLimit, too_many
from api.refusals import refuses
from rollout.api.serializers.enrolment import (
    EnrolledSerializer,
    EnrolmentSerializer,
    EnvelopeSerializer,
    HoldsSerializer,
    InvitationSerializer,
    TrustSerializer,
)
from rollout.delivery.broker_acl import user_of
from rollout.domain.errors import InvalidTokenError, NodeExistsError, NodeRekeyError, UntrustedNodeError
from rollout.queries.holds import still_held
from rollout.queries.join_tokens import control_ca, pem_in, read_token, token_row
from rollout.queries.node_documents import degraded_document
from rollout.queries.nodes import node_row
from rollout.queries.trust import control_secrets, fetch_hosts, signed_trust
from rollout.services.enrolment import NewIdentity, add_key, enrol
from rollout.signing import PROTOCOLS, envelope_from

#: Refused requests from one client address, counted in each process.
REFUSED_PER_MINUTE = 60
HEARTBEAT_SECONDS = 10.0

refused = RateLimit()


class EnrolmentViewSet(ViewSet):
    authentication_classes: list[Any] = []
    parser_classes = [SmallJSONParser]
    permissions = {"GET": Access.PUBLIC, "POST": Access.PUBLIC}

    @extend_schema(responses=InvitationSerializer)
    def retrieve(self, request: Request) -> Response:
        """Return what a node trusts: the control plane's keys and certificate authority. A host compares both with its join
        token before it sends anything."""
        return Response(
            {**_trust(), "ca": control_ca(), "protocols": PROTOCOLS, "trust": msgspec.to_builtins(signed_trust())}
        )

    @extend_schema(request=EnrolmentSerializer, responses={200: EnrolledSerializer, 201: EnrolledSerializer})
    @refuses(InvalidTokenError, NodeExistsError)
    def create(self, request: Request) -> Response:
        """Exchange a join token for an identity: 201. The same request may be repeated: 200. The node creates its key and its
        broker password itself, and sends only the public key and a hash."""
        serializer = EnrolmentSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        given = serializer.validated_data
        _require_attempts_left(request)
        try:
            token = read_token(given["token"])
            names = ("node", "public_key", "broker_password_sha256", "proof")
            is_new = enrol(NewIdentity(token=token, **{name: given[name] for name in names}))
        except InvalidTokenError:
            _count_refused(request)
            raise
        row, node = token_row(token.id), node_row(given["node"])
        document = {
            **_trust(),
            "node": node.name,
            "phase": node.phase,
            "degraded": degraded_document(node),
            "identity": node.identity,
            "broker_url": _broker_url(given["node"]),
            "broker_ca": pem_in(settings.ENVIRONMENT.broker_ca),
            "heartbeat_seconds": HEARTBEAT_SECONDS,
            "labels": {**given["labels"], **row.labels},
            "observe": given["observe"] or row.observe,
        }
        return Response(document, status=201 if is_new else 200)

    @extend_schema(request=EnvelopeSerializer, responses={200: TrustSerializer})
    @refuses(UntrustedNodeError, NodeRekeyError)
    def add_key(self, request: Request) -> Response:
        """Add a new key of a node, in an envelope with the purpose `rekey` that its current key has signed. Both keys are
        valid until the node uses the new one. The key must have been requested, see `POST /v2/nodes/{name}/rekey`."""
        serializer = EnvelopeSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        _require_attempts_left(request)
        try:
            add_key(envelope_from(serializer.validated_data))
        except UntrustedNodeError:
            _count_refused(request)
            raise
        return Response(_trust())

    @extend_schema(request=EnvelopeSerializer, responses=HoldsSerializer)
    @refuses(UntrustedNodeError)
    def holds(self, request: Request) -> Response:
        """Return what a node has to hold after an operation that has put another version of a module on it, in an envelope with
        the purpose `holds` that its key has signed. The payload has `rollout`, `module_name`, `version` and `sent_at`, Unix time
        in seconds. An agent asks at each heartbeat, until both are false."""
        serializer = EnvelopeSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        _require_attempts_left(request)
        try:
            return Response(still_held(envelope_from(serializer.validated_data)))
        except UntrustedNodeError:
            _count_refused(request)
            raise


def _trust() -> dict[str, Any]:
    keys = (each.public for each in control_secrets())
    return {
        "control_keys": [{"id": each.id, "signing": each.signing, "agreement": each.agreement} for each in keys],
        "fetch_hosts": fetch_hosts(),
    }


def _broker_url(node: str) -> str:
    """Return the broker's URL for the node: with its user, without a password."""
    parts = urlsplit(settings.ENVIRONMENT.agent_broker_url or settings.ENVIRONMENT.broker_url)
    return urlunsplit(parts._replace(netloc=f"{user_of(node)}@{parts.netloc.rpartition('@')[2]}"))


def _require_attempts_left(request: Request) -> None:
    address = client_address(request.META)
    if seconds := refused.seconds_to_wait(address, per_minute=REFUSED_PER_MINUTE):
        raise too_many("refused requests", seconds)


def _count_refused(request: Request) -> None:
    refused.count(client_address(request.META), per_minute=REFUSED_PER_MINUTE)
