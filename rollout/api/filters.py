"""What lists of rollouts, nodes and events may be asked for.

What has no index is looked for among the rows of one fleet, ten thousand at most.
"""

from datetime import datetime, timedelta
from typing import Any

import django_filters
from django.core.validators import RegexValidator
from django.db.models import Exists, OuterRef, Q, QuerySet

from api.filters import MomentFilter, PairsFilter, TextFilter, TruthFilter, WholeNumberFilter, WordsFilter
from eventstore import by_actor, of_request, position_at
from rollout.domain.node.state import NodePhase
from rollout.domain.rollout.events import Origin, RolloutPhase
from rollout.domain.selector import Selector, select
from rollout.messages import FINAL_PHASES, Action, Phase, Reason
from rollout.models import NodeModule, Operation
from rollout.projections.nodes import ModuleState
from rollout.queries.nodes import nodes_with_liveness


class RolloutFilters(django_filters.FilterSet):
    phase = WordsFilter(RolloutPhase, field_name="phase", help_text="Any of these")
    action = WordsFilter(Action, field_name="action", help_text="Any of these")
    origin = WordsFilter(Origin, field_name="origin", help_text="Any of these")
    module_name = TextFilter(field_name="module_name")
    version = WholeNumberFilter(field_name="version")
    actor = TextFilter(field_name="actor", help_text="Who started it, by login name")
    created_after = MomentFilter(field_name="created_at", lookup_expr="gt")
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt")


class OperationFilters(django_filters.FilterSet):
    phase = WordsFilter(Phase, field_name="phase", help_text="Any of these")
    reason = WordsFilter(Reason, field_name="reason", help_text="Any of these")
    outcome = WordsFilter(
        sorted(FINAL_PHASES), method="with_outcome", help_text="One of its attempts has ended in any of these"
    )
    wave = WholeNumberFilter(field_name="wave")
    node = TextFilter(field_name="node")

    def with_outcome(self, rows: QuerySet[Any], name: str, value: list[str]) -> QuerySet[Any]:
        attempts = Operation.attempts.filter(rollout=OuterRef("rollout"), node=OuterRef("node"), phase__in=value)
        return rows.filter(Exists(attempts))


class AttemptFilters(django_filters.FilterSet):
    module_name = TextFilter(field_name="module_name")
    rollout = TextFilter(field_name="rollout", help_text="Its uid")
    phase = WordsFilter(Phase, field_name="phase", help_text="Any of these")


class NodeFilters(django_filters.FilterSet):
    phase = WordsFilter(
        [each for each in NodePhase if each != NodePhase.DECOMMISSIONED], field_name="phase", help_text="Any of these"
    )
    platform = TextFilter(field_name="platform", help_text="Such as `linux/x86_64`")
    operating_system = TextFilter(field_name="operating_system", help_text="Such as `rhel9`")
    server = TextFilter(field_name="server", help_text="`valkey` or `redis`")
    label = PairsFilter(method="with_labels", help_text="`name=value`; all of these")
    module = TextFilter(
        method="with_module",
        validators=[RegexValidator(r"\A[^:]+(:[0-9]{1,18})?\Z", "Must be name or name:version.")],
        help_text="Has it or is to have it: `name`, or `name:version`",
    )
    state = WordsFilter(
        ModuleState, method="in_states", help_text="Has a module, that of `module` if given, in any of these"
    )
    in_sync = TruthFilter(method="in_or_out_of_sync", help_text="Whether all modules are as they are to be")

    def with_labels(self, rows: QuerySet[Any], name: str, value: dict[str, str]) -> QuerySet[Any]:
        selector = Selector(labels={label: (wanted,) for label, wanted in value.items()})
        return rows.filter(name__in=[each.name for each in select(selector, rows)])

    def with_module(self, rows: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        return rows.filter(Exists(_modules(value)))

    def in_states(self, rows: QuerySet[Any], name: str, value: list[str]) -> QuerySet[Any]:
        return rows.filter(Exists(_modules(self.form.cleaned_data["module"]).filter(state__in=value)))

    def in_or_out_of_sync(self, rows: QuerySet[Any], name: str, value: bool) -> QuerySet[Any]:
        compared: QuerySet[Any] = nodes_with_liveness(rows)
        synced: QuerySet[Any] = compared.filter(in_sync=value)
        return synced


class EventFilters(django_filters.FilterSet):
    """Times become positions: the log has no index of times, and needs none.

    `actor` has no index, which each append would pay for: it reads the log in its order until the page is full. With
    `after` or `after_position` it reads only what comes behind it."""

    stream = TextFilter(field_name="stream", help_text="Such as `rollout:<uid>` or `node:<name>`")
    stream_prefix = TextFilter(field_name="stream", lookup_expr="startswith", help_text="Such as `placement:<node>:`")
    type = TextFilter(method="of_type", help_text="Such as `rollout.started.v1`, or a beginning such as `rollout.`")
    actor = TextFilter(method="of_actor", help_text="A login name, or such as `node:n1`, `system:relay`")
    correlation_id = TextFilter(method="of_one_request", help_text="All that followed from this request")
    after = MomentFilter(method="after_moment", help_text="Recorded later")
    before = MomentFilter(method="before_moment", help_text="Recorded earlier")
    after_position = WholeNumberFilter(field_name="position", lookup_expr="gt")
    before_position = WholeNumberFilter(field_name="position", lookup_expr="lt")

    def of_type(self, rows: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        return rows.filter(Q(type__startswith=value) if value.endswith(".") else Q(type=value))

    def of_actor(self, rows: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        return by_actor(rows, value)

    def of_one_request(self, rows: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        return of_request(rows, value)

    def after_moment(self, rows: QuerySet[Any], name: str, value: datetime) -> QuerySet[Any]:
        return rows.filter(position__gt=position_at(value))

    def before_moment(self, rows: QuerySet[Any], name: str, value: datetime) -> QuerySet[Any]:
        return rows.filter(position__lte=position_at(value - timedelta(microseconds=1)))


def _modules(wanted: str) -> QuerySet[NodeModule]:
    """Modules of a node: all, or those of a name or of a `name:version`."""
    modules = NodeModule.objects.filter(node=OuterRef("name"))
    name, _, version = wanted.partition(":")
    if name:
        modules = modules.filter(module_name=name)
    return modules.filter(version=int(version)) if version else modules
