"""The body of a request that starts or plans a rollout."""

from typing import Any

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

import decoding
from api.fields import StrictBooleanField, StrictCharField, StrictIntegerField, StrictSerializer
from rollout.api.serializers.strategy import ACTIVATIONS, MAX_NODES, StrategySerializer, choices
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.events import Origin
from rollout.domain.strategy import OnAbort, OnFailure
from rollout.messages import Action, Activation, Ways


def _words() -> serializers.ListField:
    return serializers.ListField(child=StrictCharField(max_length=128), min_length=1, max_length=100, required=False)


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    }
)
class LabelValuesField(serializers.Field[Any, Any, Any, Any]):
    """The accepted values of each label: one value, or a list of which one must match."""

    def to_internal_value(self, data: Any) -> dict[str, tuple[str, ...]]:
        if not isinstance(data, dict) or not data:
            raise serializers.ValidationError("Must be an object of labels and their values.")
        accepted = {name: tuple(values) if isinstance(values, list) else (values,) for name, values in data.items()}
        if wrong := [name for name, values in accepted.items() if not values or not _are_texts(values)]:
            raise serializers.ValidationError({name: ["Must be a string or a list of strings."] for name in wrong})
        return accepted

    def to_representation(self, value: Any) -> Any:
        return value


def _are_texts(values: tuple[Any, ...]) -> bool:
    return all(isinstance(each, str) for each in values)


class SelectorSerializer(StrictSerializer):
    """All given fields must match. Of the values of one field, one must match."""

    names = _words()
    labels = LabelValuesField(required=False)
    platforms = _words()
    servers = serializers.ListField(
        child=serializers.ChoiceField(["valkey", "redis"]), min_length=1, max_length=2, required=False
    )
    versions = _words()
    roles = serializers.ListField(
        child=serializers.ChoiceField(["master", "replica"]), min_length=1, max_length=2, required=False
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError(f"Must have at least one of {', '.join(self.fields)}.")
        return attrs


class StartRolloutSerializer(StrictSerializer):
    action = serializers.ChoiceField(choices(Action))
    module_name = StrictCharField(validators=[RegexValidator(r"\A[A-Za-z0-9_.-]{1,128}\Z")])
    version = StrictIntegerField(min_value=0, max_value=2**31 - 1)
    activation = serializers.ChoiceField(
        ACTIVATIONS,
        default=Ways.AUTO.value,
        help_text="`load`: while the server runs. `restart`: by a restart of the server. `auto`: load where that is possible, else "
        "restart. `files`: only put the files in place",
    )
    may_interrupt = StrictBooleanField(
        default=False, help_text="Restart a server even if no other one can take over its clients"
    )
    may_discard_data = StrictBooleanField(
        default=False,
        help_text="Restart a server even if its data is neither on disk nor on a replica; and go back from a one-way change with "
        "the data from before it",
    )
    failback = StrictBooleanField(
        default=False,
        help_text="After a success, a rollout of its own makes each master that gave its role away the master again",
    )
    nodes = serializers.ListField(
        child=StrictCharField(max_length=128),
        min_length=1,
        max_length=MAX_NODES,
        required=False,
        help_text="Names of nodes. Without `nodes` and `selector`: all nodes",
    )
    selector = SelectorSerializer(required=False)
    strategy = StrategySerializer(required=False)
    supersede = StrictBooleanField(default=False)
    even_if_used = StrictBooleanField(
        default=False,
        help_text="Remove the module even if its commands were called in the last 10 minutes",
    )
    adopt = StrictBooleanField(
        default=False,
        help_text="Take over the module where the server has loaded the same file already, from a path that is not "
        "Modfleet's: without a load. All other nodes are skipped",
    )
    plan_hash = StrictCharField(
        validators=[RegexValidator(r"\A[0-9a-f]{64}\Z")],
        required=False,
        help_text="Start only if the plan still has this hash",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "nodes" in attrs and "selector" in attrs:
            raise serializers.ValidationError({"selector": ["Cannot be combined with nodes."]})
        if attrs["even_if_used"] and attrs["action"] != Action.REMOVE:
            raise serializers.ValidationError({"even_if_used": ["Must be false unless action is remove."]})
        if attrs["adopt"] and (attrs["action"] != Action.INSTALL or attrs["activation"] not in {Ways.LOAD, Ways.AUTO}):
            raise serializers.ValidationError(
                {"adopt": ["Must be false unless action is install and activation is load or auto."]}
            )
        if attrs["failback"] and (attrs["adopt"] or attrs["activation"] not in {Ways.AUTO, Ways.RESTART}):
            raise serializers.ValidationError(
                {"failback": ["Must be false unless activation is auto or restart, and adopt is false."]}
            )
        strategy = attrs.get("strategy", {})
        undoes = strategy.get("on_failure") == OnFailure.ROLLBACK or strategy.get("on_abort") == OnAbort.UNDO
        if attrs["adopt"] and undoes:
            raise serializers.ValidationError(
                {
                    "adopt": [
                        "Cannot be combined with on_failure rollback or on_abort undo: they would unload the module."
                    ]
                }
            )
        return attrs

    def to_request(self, origin: Origin) -> RolloutRequest:
        """Return the request. Fields that are left out get their defaults."""
        data = {**self.validated_data, "origin": origin}
        activation = data.pop("activation")
        if activation == Activation.FILES:
            return decoding.convert({**data, "activation": Activation.FILES}, RolloutRequest)
        return decoding.convert({**data, "ways": activation}, RolloutRequest)
