"""The strategy of a rollout."""

import re
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from api.fields import StrictBooleanField, StrictFloatField, StrictIntegerField, StrictSerializer, moment
from rollout.domain.retries import LONGEST_BACKOFF_SECONDS
from rollout.domain.strategy import LONGEST_SETTLING_SECONDS, Amount, Gate, Offline, OnAbort, OnFailure, Strategy
from rollout.domain.window import parse_window
from rollout.messages import Activation, FailedCalls, Reason, Ways

MAX_NODES = 10_000


MAX_WAVES = 100


DAY_SECONDS = 86_400

#: The wanted state, and how a server may come to it, as one word.
ACTIVATIONS = [Activation.FILES.value, *(each.value for each in Ways)]


def choices(words: type[StrEnum]) -> list[str]:
    return [each.value for each in words]


@extend_schema_field({"oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,3}%$"}]})
class AmountField(serializers.Field[Any, Any, Any, Any]):
    """A number of nodes, at least `least`, or a share such as `"10%"`, at least `least` %."""

    def __init__(self, *, least: int = 0, **more: Any) -> None:
        super().__init__(**more)
        self.least = least

    def to_internal_value(self, data: Any) -> Amount:
        match data:
            case bool():
                pass
            case int() if self.least <= data <= MAX_NODES:
                return data
            case str() if (share := re.fullmatch("(0|[1-9][0-9]?|100)%", data)) and int(share[1]) >= self.least:
                return data
        raise serializers.ValidationError(
            f'Must be an integer from {self.least} to {MAX_NODES}, or a share from "{self.least}%" to "100%".'
        )

    def to_representation(self, value: Amount) -> Amount:
        return value


@extend_schema_field({"type": "string", "format": "date-time"})
class MomentField(serializers.Field[Any, Any, Any, Any]):
    """An RFC 3339 time with a time zone."""

    def to_internal_value(self, data: Any) -> datetime:
        if isinstance(data, str):
            with suppress(ValueError):
                return moment(data)
        raise serializers.ValidationError('Must be a time with a time zone, such as "2026-11-23T16:20:00Z".')

    def to_representation(self, value: Any) -> Any:
        return value


def _is_window(text: str) -> None:
    try:
        parse_window(text)
    except ValueError as error:
        raise serializers.ValidationError(str(error)) from error


class RetriesSerializer(StrictSerializer):
    limit = StrictIntegerField(min_value=0, max_value=10, required=False, help_text="Automatic retries of one node")
    backoff_seconds = StrictFloatField(
        min_value=0,
        max_value=LONGEST_BACKOFF_SECONDS,
        required=False,
        help_text="Wait before the first retry, in seconds; it doubles with each retry",
    )
    reasons = serializers.ListField(
        child=serializers.ChoiceField(choices(Reason)),
        max_length=len(Reason),
        required=False,
        help_text="Reasons of failures that are retried",
    )


class HealthStrategySerializer(StrictSerializer):
    failed_calls = serializers.ChoiceField(
        choices(FailedCalls),
        required=False,
        help_text="What happens if more than twice the share of calls of the module's commands fails as before",
    )


class StrategySerializer(StrictSerializer):
    """All fields are optional. An amount is a number of nodes, or a share such as `"10%"`."""

    canary = AmountField(required=False, help_text="Size of the first wave; 0: no canary")
    waves = serializers.ListField(
        child=AmountField(least=1),
        max_length=MAX_WAVES,
        required=False,
        help_text="Sizes of the waves after the canary; the remaining nodes are one more wave",
    )
    max_parallel = AmountField(least=1, required=False, help_text="Nodes updated in parallel")
    min_healthy = AmountField(
        required=False, help_text="Nodes that stay online, without an operation in progress and without a failure"
    )
    max_failures = AmountField(required=False, help_text="Failures that are accepted; more failures stop the rollout")
    on_failure = serializers.ChoiceField(choices(OnFailure), required=False)
    on_abort = serializers.ChoiceField(choices(OnAbort), required=False)
    soak_seconds = StrictFloatField(
        min_value=0, max_value=DAY_SECONDS, required=False, help_text="Seconds to watch health after each wave"
    )
    gate = serializers.ChoiceField(choices(Gate), required=False)
    settle_seconds = StrictFloatField(
        min_value=0,
        max_value=LONGEST_SETTLING_SECONDS,
        required=False,
        help_text="Seconds that a server has to run after the load before its node succeeds",
    )
    health = HealthStrategySerializer(required=False)
    node_deadline_seconds = StrictFloatField(
        min_value=1, max_value=DAY_SECONDS, required=False, help_text="Longest time for one node, in seconds"
    )
    progress_deadline_seconds = StrictFloatField(
        min_value=1, max_value=7 * DAY_SECONDS, required=False, help_text="Longest time without any success, in seconds"
    )
    ready_deadline_seconds = StrictFloatField(
        min_value=1,
        max_value=7 * DAY_SECONDS,
        required=False,
        help_text="Longest wait of one node for its server, for example while it loads data; then the node is skipped",
    )
    domain = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=128,
        help_text="A label such as `zone`: nodes in progress, of any rollout, have one value of it at a time",
    )
    pause_seconds = StrictFloatField(
        min_value=0.1,
        max_value=60,
        required=False,
        help_text="Longest time for which the writes of a shard wait while a replica becomes the master, in seconds",
    )
    window = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=100,
        validators=[_is_window],
        help_text="A weekly window such as `Sat 01:00-05:00 Europe/Berlin`: outside of it, no server is restarted",
    )
    retries = RetriesSerializer(required=False)
    offline = serializers.ChoiceField(
        choices(Offline), required=False, help_text="What to do with a node that is offline when its wave runs"
    )
    start_at = MomentField(required=False, allow_null=True, help_text="The rollout does not start before this time")
    approval = StrictBooleanField(
        required=False, help_text="The rollout does not start before a second person has approved it"
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        default = Strategy()
        settle = attrs.get("settle_seconds", default.settle_seconds)
        deadline = attrs.get("node_deadline_seconds", default.node_deadline_seconds)
        if settle >= deadline:
            raise serializers.ValidationError(
                {"settle_seconds": f"Must be less than node_deadline_seconds: {settle:g} s of {deadline:g} s."}
            )
        return attrs
