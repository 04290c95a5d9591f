"""Bodies of the actions on a rollout."""

from api.fields import StrictBooleanField, StrictCharField, StrictIntegerField, StrictSerializer


class PromoteSerializer(StrictSerializer):
    wave = StrictIntegerField(
        min_value=0,
        required=False,
        help_text="The wave whose gate to open; default: the gate at which the rollout waits",
    )


class RemarkSerializer(StrictSerializer):
    remark = StrictCharField(max_length=1000)


class CancelSerializer(StrictSerializer):
    force = StrictBooleanField(default=False, help_text="Cancel at once, without waiting for the node's answer")
