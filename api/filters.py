"""Filters of lists: checked words, values that a client may repeat, and their documentation."""

from collections.abc import Iterable
from typing import Any

import django_filters
from django import forms
from drf_spectacular.utils import OpenApiParameter

from api.fields import moment

#: The longest text of a filter, characters.
MAX_TEXT = 300


class TextFilter(django_filters.CharFilter):
    """A text that is not empty. White space is kept."""

    def __init__(self, **more: Any) -> None:
        super().__init__(strip=False, max_length=MAX_TEXT, **more)


class WordsFilter(django_filters.MultipleChoiceFilter):
    """One of a few words. A client may repeat the parameter."""

    def __init__(self, words: Iterable[str], **more: Any) -> None:
        super().__init__(choices=[(each, each) for each in words], **more)


class WholeNumberFilter(django_filters.NumberFilter):
    """An integer that all databases can compare."""

    field_class = forms.IntegerField

    def __init__(self, *, least: int = 0, **more: Any) -> None:
        super().__init__(min_value=least, max_value=2**63 - 1, **more)

    def get_max_validator(self) -> None:
        return None


class TruthField(forms.Field):
    """`true` or `false`."""

    def to_python(self, value: Any) -> bool | None:
        if value in (None, ""):
            return None
        if value not in {"true", "false"}:
            raise forms.ValidationError("Must be true or false.")
        return bool(value == "true")


class TruthFilter(django_filters.Filter):
    field_class = TruthField


class PairsField(forms.Field):
    """Any number of `name=value`, as a dictionary."""

    widget = forms.MultipleHiddenInput

    def to_python(self, value: Any) -> dict[str, str]:
        pairs = [str(each).partition("=") for each in value or ()]
        if not all(name and equals for name, equals, _ in pairs):
            raise forms.ValidationError("Must be name=value.")
        return {name: text for name, _, text in pairs}


class PairsFilter(django_filters.Filter):
    """Pairs. A client may repeat the parameter."""

    field_class = PairsField


class MomentFilterField(forms.CharField):
    """A time in RFC 3339, with a zone."""

    def to_python(self, value: Any) -> Any:
        if value in (None, ""):
            return None
        try:
            return moment(str(value))
        except ValueError as error:
            raise forms.ValidationError('Must be a time with its zone, such as "2026-11-23T16:20:00Z".') from error


class MomentFilter(django_filters.Filter):
    field_class = MomentFilterField


def parameters_of(filters: type[django_filters.FilterSet]) -> list[OpenApiParameter]:
    """Return the filters as parameters of the OpenAPI document. `help_text` is the description."""
    return [_parameter(name, each) for name, each in filters.base_filters.items()]


def _parameter(name: str, each: Any) -> OpenApiParameter:
    description = each.extra.get("help_text", "")
    schema: dict[str, Any]
    match each:
        case WordsFilter():
            schema = {"type": "array", "items": {"type": "string", "enum": [word for word, _ in each.extra["choices"]]}}
        case PairsFilter():
            schema = {"type": "array", "items": {"type": "string", "pattern": "^[^=]+="}}
        case WholeNumberFilter():
            schema = {"type": "integer", "minimum": each.extra["min_value"], "maximum": each.extra["max_value"]}
        case TruthFilter():
            schema = {"type": "boolean"}
        case MomentFilter():
            schema = {"type": "string", "format": "date-time"}
        case _:
            schema = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
    return OpenApiParameter(name, schema, description=description)
