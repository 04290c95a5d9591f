"""Users, tokens and the cluster, as the vendor's clients send and expect them."""

from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from accounts.models import User
from accounts.roles import Role
from accounts.services import UserChanges
from accounts.tokens import DEFAULT_TTL, MAX_TTL
from api.fields import StrictBooleanField, StrictCharField, StrictIntegerField, StrictSerializer, rfc3339

#: Printable ASCII without the characters that the vendor forbids (& < > "), and without the colon of HTTP Basic.
_NAME = r"^[A-Za-z0-9@._+-](?:[A-Za-z0-9@._+' -]*[A-Za-z0-9@._+-])?\Z"
_ROLES = [each.value for each in Role]


class StrictEmailField(StrictCharField, serializers.EmailField):
    pass


class StrictChoiceField(serializers.ChoiceField):
    """Accepts only strings: DRF's own field compares `str(data)`."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a string.")
        return super().to_internal_value(data)


class UserSerializer(serializers.Serializer[Any]):
    """The vendor's user object."""

    uid = serializers.IntegerField()
    email = serializers.CharField()
    name = serializers.CharField(source="username")
    role = serializers.ChoiceField(_ROLES)
    status = serializers.SerializerMethodField()
    auth_method = serializers.SerializerMethodField()
    password_issue_date = serializers.SerializerMethodField()

    def get_status(self, user: User) -> str:
        return "active" if user.is_active else "locked"

    def get_auth_method(self, user: User) -> str:
        return "regular"

    def get_password_issue_date(self, user: User) -> str:
        return rfc3339(user.password_issued_at)


class _UserFields(StrictSerializer):
    name = StrictCharField(
        validators=[RegexValidator(_NAME, "Must be ASCII letters, digits, spaces and @ . _ + - ' only.")],
        max_length=150,
        trim_whitespace=False,
        required=False,
    )
    # Accepted for existing clients, and ignored: Modfleet sends no mail.
    email_alerts = StrictBooleanField(required=False, write_only=True)
    cluster_email_alerts = StrictBooleanField(required=False, write_only=True)
    bdbs_email_alerts = serializers.ListField(child=StrictCharField(), required=False, write_only=True)
    auth_method = StrictChoiceField(["regular"], required=False)


class NewUserSerializer(_UserFields):
    email = StrictEmailField(max_length=254)
    password = StrictCharField(max_length=256, trim_whitespace=False, write_only=True)
    role = StrictChoiceField(_ROLES)


class UserChangesSerializer(_UserFields):
    email = StrictEmailField(max_length=254, required=False)
    password = StrictCharField(max_length=256, trim_whitespace=False, required=False, write_only=True)
    role = StrictChoiceField(_ROLES, required=False)
    status = StrictChoiceField(["active", "locked"], required=False)

    def changes(self) -> UserChanges:
        given = self.validated_data
        return UserChanges(
            name=given.get("name"),
            email=given.get("email"),
            password=given.get("password"),
            role=Role(given["role"]) if "role" in given else None,
            active=given["status"] == "active" if "status" in given else None,
        )


class TtlSerializer(StrictSerializer):
    ttl = StrictIntegerField(min_value=1, max_value=MAX_TTL, default=DEFAULT_TTL, help_text="Seconds.")


class AuthorizeSerializer(TtlSerializer):
    """Name and password, if the Authorization header does not have them."""

    username = StrictCharField(required=False)
    password = StrictCharField(required=False, trim_whitespace=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("username" in attrs) != ("password" in attrs):
            missing = "password" if "username" in attrs else "username"
            raise serializers.ValidationError({missing: ["This field is required."]})
        return attrs


class TokenSerializer(serializers.Serializer[dict[str, str]]):
    access_token = serializers.CharField()


class ClusterSerializer(StrictSerializer):
    name = StrictCharField(max_length=255, required=False)
    allow_modules_upload = StrictBooleanField(required=False)
    correct_drift = StrictBooleanField(
        required=False,
        help_text="Correct a module automatically when it differs from what was last released to its node.",
    )
    enforce_compatible_redis_version = StrictBooleanField(
        required=False,
        help_text="Skip nodes whose server is newer than the module's `compatible_redis_version`, instead of warning.",
    )
