"""Join tokens, and the exchange of a token for a node's identity."""

from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from api.fields import StrictBooleanField, StrictCharField, StrictIntegerField, StrictSerializer
from rollout.api.serializers.nodes import DegradationSerializer, LabelsField
from rollout.domain.join_token.decider import MOST_USES
from rollout.domain.node.state import Identity, NodePhase
from rollout.queries.join_tokens import TokenState
from rollout.signing import PROTOCOLS, Purpose

_NODE = RegexValidator(
    r"\A(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,128}\Z", "Must be 1 to 128 ASCII letters, digits, - _ and . only."
)
_KEY = RegexValidator(r"\A[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]\Z", "Must be 32 bytes, in base64 for URLs.")
_SHA256 = RegexValidator(r"\A[0-9a-f]{64}\Z", "Must be 64 hexadecimal digits.")
_YEAR_SECONDS = 366 * 86_400


class NewJoinTokenSerializer(StrictSerializer):
    node = StrictCharField(required=False, validators=[_NODE], help_text="For this one node, and one use")
    pattern = StrictCharField(
        required=False,
        max_length=128,
        help_text="For all nodes whose names match, instead of `node`. `*` stands for any characters: `cache-*`",
    )
    uses = StrictIntegerField(
        min_value=1, max_value=MOST_USES, default=1, help_text="With `pattern`: how many nodes may use it"
    )
    labels = LabelsField(default=dict, help_text="Labels that each of its nodes gets, as if an operator had set them")
    expires_in_seconds = StrictIntegerField(min_value=60, max_value=_YEAR_SECONDS, default=3600)
    auto_accept = StrictBooleanField(
        default=False, help_text="With `pattern`: its nodes join without a person who accepts each of them"
    )
    observe = StrictBooleanField(default=False, help_text="Its agents change nothing on their hosts")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("node" in attrs) == ("pattern" in attrs):
            raise serializers.ValidationError("Give either node or pattern.")
        return attrs


class JoinTokenSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    node = serializers.CharField(allow_null=True)
    pattern = serializers.CharField(allow_null=True)
    uses = serializers.IntegerField()
    used = serializers.IntegerField()
    labels = serializers.DictField(child=serializers.CharField())
    expires_at = serializers.DateTimeField()
    auto_accept = serializers.BooleanField()
    observe = serializers.BooleanField()
    state = serializers.ChoiceField(list(TokenState))
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()


class CreatedJoinTokenSerializer(JoinTokenSerializer):
    token = serializers.CharField(help_text="Only this answer has it")
    command = serializers.CharField(help_text="The command to run on the node's host, with the token")
    note = serializers.CharField(allow_null=True, help_text="If the fleet has a node of this name: when it is replaced")


class ControlKeySerializer(serializers.Serializer[Any]):
    id = serializers.CharField(
        help_text="The first 16 digits of the SHA-256 of both keys. A join token has the first 32"
    )
    signing = serializers.CharField(help_text="Ed25519, 32 bytes in base64 for URLs")
    agreement = serializers.CharField(help_text="X25519, likewise")


class TrustSerializer(serializers.Serializer[Any]):
    control_keys = ControlKeySerializer(many=True)
    fetch_hosts = serializers.ListField(
        child=serializers.CharField(), help_text="Hosts, besides the control plane's own, from which packages may come"
    )


class EnvelopeSerializer(StrictSerializer):
    protocol = StrictIntegerField(min_value=1, max_value=1000)
    purpose = serializers.ChoiceField(list(Purpose))
    node = StrictCharField(validators=[_NODE])
    key = StrictCharField(validators=[RegexValidator(r"\A[0-9a-f]{16}\Z")])
    peer = StrictCharField(validators=[RegexValidator(r"\A[0-9a-f]{16}\Z")])
    payload = StrictCharField(max_length=10_000, trim_whitespace=False)
    signature = StrictCharField(max_length=128)


class HoldsSerializer(serializers.Serializer[Any]):
    withhold = serializers.BooleanField(
        help_text="The node's server must not become the master: another copy of its shard has the former version"
    )
    keep_data = serializers.BooleanField(help_text="The data from before the operation may still be needed")


class SignedTrustSerializer(serializers.Serializer[Any]):
    protocol = serializers.IntegerField()
    purpose = serializers.CharField()
    node = serializers.CharField()
    key = serializers.CharField()
    peer = serializers.CharField(allow_blank=True)
    payload = serializers.CharField()
    signature = serializers.CharField()


class InvitationSerializer(TrustSerializer):
    ca = serializers.CharField(allow_null=True, help_text="The control plane's certificate authority as PEM")
    protocols = serializers.ListField(child=serializers.ChoiceField(PROTOCOLS), help_text="Formats of messages")
    trust = SignedTrustSerializer(many=True, help_text="`control_keys` and `fetch_hosts`, signed with each of the keys")


class EnrolmentSerializer(StrictSerializer):
    token = StrictCharField(max_length=256)
    node = StrictCharField(validators=[_NODE])
    public_key = StrictCharField(validators=[_KEY], help_text="X25519, 32 bytes in base64 for URLs")
    broker_password_sha256 = StrictCharField(validators=[_SHA256])
    labels = LabelsField(default=dict, help_text="Labels that the agent will report; those of the token override them")
    observe = StrictBooleanField(default=False)
    proof = StrictCharField(
        max_length=128,
        help_text="The signature, with the new key, of an envelope with the purpose `enrol` for the first control key. Its "
        'payload is {"public_key":…,"broker_password_sha256":…,"token_id":…} without white space.',
    )


class EnrolledSerializer(TrustSerializer):
    node = serializers.CharField()
    phase = serializers.ChoiceField(list(NodePhase))
    degraded = DegradationSerializer(allow_null=True, help_text="Null if the node's server can be used")
    identity = serializers.ChoiceField(list(Identity), help_text="`pending`: a person must accept the node")
    broker_url = serializers.CharField(help_text="With the node's user, without its password")
    broker_ca = serializers.CharField(allow_null=True, help_text="The broker's certificate authority as PEM")
    heartbeat_seconds = serializers.FloatField()
    labels = serializers.DictField(child=serializers.CharField())
    observe = serializers.BooleanField()
