"""The form that starts a rollout. The API's serializer validates it; the services plan and start it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.errors import ApiError
from artifacts_app.errors import ArtifactNotFoundError
from console.rollouts.body import Errors, body_of, errors_of
from console.rollouts.fields import ALL, COMMON, MORE, SELECTOR, Field, Texts, defaults
from rollout.admin.node_tables import FIRST_MEMBERS, shard_table
from rollout.api.serializers.freeze import ReasonSerializer as ReasonSerializer  # noqa: PLC0414 - the views import all forms from here
from rollout.api.serializers.start import StartRolloutSerializer
from rollout.api.serializers.verbs import RemarkSerializer as RemarkSerializer  # noqa: PLC0414 - likewise
from rollout.domain.errors import (
    CommandsInUseError,
    NoMatchError,
    PlanChangedError,
    RolloutInProgressError,
    UnknownNodeError,
)
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.events import Origin
from rollout.planning.forecast import plan_document
from rollout.planning.planner import plan_of
from rollout.services.start import start_rollout
from ui.pages import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownField:
    """A field with its texts and errors, as the page shows it."""

    field: Field
    values: Sequence[str]
    errors: Sequence[str]

    @property
    def value(self) -> str:
        return (", " if self.field.widget == "amounts" else "\n").join(self.values)


class StartForm:
    """The texts of the form, their errors, and the plan."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.errors: Errors = {}
        self.plan: dict[str, Any] | None = None
        #: The plan is no longer the one that the person saw.
        self.has_changed = False
        #: The uid of a rollout in progress that blocks this one, or empty.
        self.blocked_by = ""

    def preview(self) -> None:
        if (request := self._checked()) is not None:
            self._plan(request)

    def start(self) -> str:
        """Start the rollout and return its uid. If it is empty, nothing was started and the form shows why."""
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
                self.blocked_by = error.rollout
                self.errors = {"": [_BLOCKED]}
            case CommandsInUseError():
                self.errors = {"": [error.description.replace(_EVEN_IF_USED, _SELECT_IT)]}
            case NoMatchError():
                self.errors = {"selector": ["No node matches all of these fields."]}
            case UnknownNodeError():
                self.errors = {"nodes": [error.description]}
            case ArtifactNotFoundError():
                self.errors = {"artifact": [error.description]}
            case _:
                self.errors = _at_its_field(error.description)

    @property
    def shards(self) -> Table | None:
        """The servers of the shards of the plan, None if there are none."""
        shards = self.plan["shards"] if self.plan else ()
        nodes = [node for shard in shards for node in shard["nodes"]]
        reasons = {each["address"]: each["reason"] for shard in shards for each in shard["ignored_replicas"]}
        return shard_table("Shards", nodes[:FIRST_MEMBERS], reasons) if nodes else None

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
        """Return True if a field under "More" has an error, or a text that is not the default."""
        usual = defaults()
        return any(each.errors or list(each.values) != usual.get(each.field.name, []) for each in self.more)

    @property
    def count_of_errors(self) -> int:
        """Return the number of errors that belong to a field."""
        return sum(len(each) for name, each in self.errors.items() if name)


_BLOCKED = (
    "A rollout of this module is in progress on some of these nodes. Wait until it ends, abort it, or select "
    "“Replace a rollout of this module that is in progress” under More."
)
#: What the API asks for, and what the form has instead.
_EVEN_IF_USED = 'send "even_if_used": true'
_SELECT_IT = "select “Remove the module even if it is used” under More"


def _at_its_field(description: str) -> Errors:
    """Return the error at its field if it begins with the field's path, else for the form as a whole."""
    found = re.match(r"([a-z_.]+): (.+)", description, re.DOTALL)
    if found and found[1] in {each.name for each in ALL}:
        return {found[1]: [found[2]]}
    return {"": [description]}
