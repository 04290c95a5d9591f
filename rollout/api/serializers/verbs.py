"""What people say to a rollout."""

from api.fields import StrictBooleanField, StrictCharField, StrictIntegerField, StrictSerializer


class PromoteSerializer(StrictSerializer):
    wave = StrictIntegerField(
        min_value=0, required=False, help_text="Whose gate is meant; left out: the one at which it waits"
    )


class RemarkSerializer(StrictSerializer):
    remark = StrictCharField(max_length=1000)


class CancelSerializer(StrictSerializer):
    force = StrictBooleanField(default=False, help_text="End it without waiting for the node's answer")
