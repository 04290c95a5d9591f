"""What the form of a rollout asks for: checked by the API's serializer, planned and started by the services."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.errors import ApiError
from artifacts_app.errors import ArtifactNotFoundError
from console.rollouts.fields import ALL, COMMON, MORE, SELECTOR, Errors, Field, Texts, body_of, defaults, errors_of
from rollout.api.serializers.freeze import ReasonSerializer as ReasonSerializer  # noqa: PLC0414 - from one place, likewise
from rollout.api.serializers.start import StartRolloutSerializer
from rollout.api.serializers.verbs import RemarkSerializer as RemarkSerializer  # noqa: PLC0414 - likewise
from rollout.domain.errors import NoMatchError, PlanChangedError, RolloutInProgressError, UnknownNodeError
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.events import Origin
from rollout.planning.forecast import plan_document
from rollout.planning.planner import plan_of
from rollout.services.start import start_rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownField:
    """A field as the page shows it, with what was typed."""

    field: Field
    values: Sequence[str]
    errors: Sequence[str]

    @property
    def value(self) -> str:
        return (", " if self.field.widget == "amounts" else "\n").join(self.values)


class StartForm:
    """What was typed, what is wrong with it, and the plan of what it would do."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.errors: Errors = {}
        self.plan: dict[str, Any] | None = None
        #: What it would do is not what the person had seen.
        self.has_changed = False
        #: The rollout that is in its way.
        self.in_the_way = ""

    def preview(self) -> None:
        if (request := self._checked()) is not None:
            self._plan(request)

    def start(self) -> str:
        """The uid of the new rollout; empty if it was not started, and the form shows why."""
        if not self.text("plan_hash"):
            self.preview()
            return ""
        if (request := self._checked(plan_hash=self.text("plan_hash"))) is None:
            return ""
        try:
            return start_rollout(request)
        except PlanChangedError:
            self.has_changed = True
            self.preview()
        except ApiError as error:
            self._refuse(error)
        return ""

    def _checked(self, **more: str) -> RolloutRequest | None:
        serializer = StartRolloutSerializer(data={**body_of(self.texts), **more})
        if serializer.is_valid():
            return serializer.to_request(Origin.CONSOLE)
        self.errors = errors_of(serializer.errors)
        return None

    def _plan(self, request: RolloutRequest) -> None:
        try:
            self.plan = plan_document(plan_of(request))
        except ApiError as error:
            self._refuse(error)

    def _refuse(self, error: ApiError) -> None:
        match error:
            case RolloutInProgressError():
                self.in_the_way = error.rollout
                self.errors = {"": [_IN_THE_WAY]}
            case NoMatchError():
                self.errors = {"selector": ["No node of the fleet is all of this."]}
            case UnknownNodeError():
                self.errors = {"nodes": [error.description]}
            case ArtifactNotFoundError():
                self.errors = {"artifact": [error.description]}
            case _:
                self.errors = _at_its_field(error.description)

    # --- For the page -------------------------------------------------------------------------------------------------

    def text(self, name: str) -> str:
        return "".join(self.texts.get(name, [])[:1])

    def shown(self, *fields: Field) -> list[ShownField]:
        return [
            ShownField(field=each, values=self.texts.get(each.name, []), errors=self.errors.get(each.name, ()))
            for each in fields
        ]

    @property
    def common(self) -> list[ShownField]:
        return self.shown(*COMMON)

    @property
    def more(self) -> list[ShownField]:
        return self.shown(*MORE)

    @property
    def selector(self) -> list[ShownField]:
        return self.shown(*SELECTOR)

    @property
    def is_more_open(self) -> bool:
        """Whether there is something to see under "More"."""
        usual = defaults()
        return any(each.errors or list(each.values) != usual.get(each.field.name, []) for each in self.more)

    @property
    def count_of_errors(self) -> int:
        """Those beside a field."""
        return sum(len(each) for name, each in self.errors.items() if name)


_IN_THE_WAY = (
    "A rollout of this module is under way on some of these nodes. Wait for its end, abort it, or let this one take "
    "over: see under More."
)


def _at_its_field(description: str) -> Errors:
    """An error that begins with a field's path belongs beside the field."""
    found = re.match(r"([a-z_.]+): (.+)", description, re.DOTALL)
    if found and found[1] in {each.name for each in ALL}:
        return {found[1]: [found[2]]}
    return {"": [description]}
