"""Strict fields and serializers: `"1"` is not an integer, `1` is not a boolean, an unknown key is refused."""

import re
from datetime import UTC, datetime
from typing import Any

from rest_framework import serializers


def rfc3339(moment: datetime) -> str:
    """Return the time in UTC with `Z`, with microseconds only if it has any: `2026-11-23T16:20:00Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


#: RFC 3339, section 5.6; a leap second is refused.
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)


def moment(text: str) -> datetime:
    """Return the time in this RFC 3339 text with a zone. Raises: `ValueError`."""
    if not _MOMENT.fullmatch(text):
        raise ValueError(text)
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(text) from error


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses undeclared keys. The error lists each of them with all other problems."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(data.keys() - self.fields.keys()) if isinstance(data, dict) else []
        refused = {name: ["This field is unknown."] for name in unknown}
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if not isinstance(error.detail, dict):
                raise
            raise serializers.ValidationError({**error.detail, **refused}) from error
        if refused:
            raise serializers.ValidationError(refused)
        return value


class NothingSerializer(StrictSerializer):
    """`{}`: the request was carried out."""


class StrictBooleanField(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("Must be true or false.")
        return data


class StrictIntegerField(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("Must be an integer.")
        return super().to_internal_value(data)


class StrictFloatField(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("Must be a number.")
        return super().to_internal_value(data)


class StrictCharField(serializers.CharField):
    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a string.")
        return super().to_internal_value(data)
