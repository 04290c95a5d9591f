"""Filters of the lists of rollouts, nodes and events.

A filter without an index reads all rows of the fleet: ten thousand at most.
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
from rollout.models import NodeModule, Operation, ShardMember
from rollout.projections.node_modules import ModuleState
from rollout.queries.nodes import nodes_with_liveness


class RolloutFilters(django_filters.FilterSet):
    phase = WordsFilter(RolloutPhase, field_name="phase", help_text="Any of these values")
    action = WordsFilter(Action, field_name="action", help_text="Any of these values")
    origin = WordsFilter(Origin, field_name="origin", help_text="Any of these values")
    module_name = TextFilter(field_name="module_name")
    version = WholeNumberFilter(field_name="version")
    actor = TextFilter(field_name="actor", help_text="Login name of the user who started it")
    created_after = MomentFilter(field_name="created_at", lookup_expr="gt")
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt")


class OperationFilters(django_filters.FilterSet):
    phase = WordsFilter(Phase, field_name="phase", help_text="Any of these values")
    reason = WordsFilter(Reason, field_name="reason", help_text="Any of these values")
    outcome = WordsFilter(
        sorted(FINAL_PHASES), method="with_outcome", help_text="One of its attempts ended in one of these phases"
    )
    wave = WholeNumberFilter(field_name="wave")
    node = TextFilter(field_name="node")

    def with_outcome(self, rows: QuerySet[Any], name: str, value: list[str]) -> QuerySet[Any]:
        attempts = Operation.attempts.filter(rollout=OuterRef("rollout"), node=OuterRef("node"), phase__in=value)
        return rows.filter(Exists(attempts))


class AttemptFilters(django_filters.FilterSet):
    module_name = TextFilter(field_name="module_name")
    rollout = TextFilter(field_name="rollout", help_text="The uid of the rollout")
    phase = WordsFilter(Phase, field_name="phase", help_text="Any of these values")


class JoinTokenFilters(django_filters.FilterSet):
    node = TextFilter(field_name="node", help_text="The node that it is for")


class IgnoredReplicaFilters(django_filters.FilterSet):
    address = TextFilter(field_name="address", help_text="For example `10.0.0.7:6379`")


class NodeFilters(django_filters.FilterSet):
    phase = WordsFilter(
        [each for each in NodePhase if each != NodePhase.DECOMMISSIONED],
        field_name="phase",
        help_text="Any of these values",
    )
    platform = TextFilter(field_name="platform", help_text="For example `linux/x86_64`")
    operating_system = TextFilter(field_name="operating_system", help_text="For example `rhel9`")
    server = TextFilter(field_name="server", help_text="`valkey` or `redis`")
    label = PairsFilter(method="with_labels", help_text="`name=value`; all must match")
    shard = TextFilter(method="of_shard", help_text="The name of the shard, as `shard` of a node has it")
    module = TextFilter(
        method="with_module",
        validators=[RegexValidator(r"\A[^:]+(:[0-9]{1,18})?\Z", "Must be name or name:version.")],
        help_text="The node has the module, or should have it: `name` or `name:version`",
    )
    state = WordsFilter(
        ModuleState,
        method="in_states",
        help_text="A module of the node (the one of `module`, if given) is in one of these states",
    )
    in_sync = TruthFilter(
        method="in_or_out_of_sync", help_text="True: all modules of the node are in sync; false: at least one is not"
    )

    def with_labels(self, rows: QuerySet[Any], name: str, value: dict[str, str]) -> QuerySet[Any]:
        selector = Selector(labels={label: (each,) for label, each in value.items()})
        return rows.filter(name__in=[each.name for each in select(selector, rows)])

    def of_shard(self, rows: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        return rows.filter(name__in=ShardMember.objects.filter(shard=value).values("node"))

    def with_module(self, rows: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        return rows.filter(Exists(_modules(value)))

    def in_states(self, rows: QuerySet[Any], name: str, value: list[str]) -> QuerySet[Any]:
        return rows.filter(Exists(_modules(self.form.cleaned_data["module"]).filter(state__in=value)))

    def in_or_out_of_sync(self, rows: QuerySet[Any], name: str, value: bool) -> QuerySet[Any]:
        compared: QuerySet[Any] = nodes_with_liveness(rows)
        synced: QuerySet[Any] = compared.filter(in_sync=value)
        return synced


class EventFilters(django_filters.FilterSet):
    """Times become positions, because the log has no index of times.

    `actor` has no index either, because each append would pay for it. It reads the log in its order until the page is
    full; with `after` or `after_position` it starts there."""

    stream = TextFilter(field_name="stream", help_text="For example `rollout:<uid>` or `node:<name>`")
    stream_prefix = TextFilter(
        field_name="stream", lookup_expr="startswith", help_text="For example `placement:<node>:`"
    )
    type = TextFilter(method="of_type", help_text="For example `rollout.started.v1`, or a prefix such as `rollout.`")
    actor = TextFilter(method="of_actor", help_text="A login name, or for example `node:n1` or `system:relay`")
    correlation_id = TextFilter(method="of_one_request", help_text="All events that followed from this request")
    after = MomentFilter(method="after_moment", help_text="Recorded after this time")
    before = MomentFilter(method="before_moment", help_text="Recorded before this time")
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


def _modules(search: str) -> QuerySet[NodeModule]:
    """Return the modules of a node: all, or those of a `name` or a `name:version`."""
    modules = NodeModule.objects.filter(node=OuterRef("name"))
    name, _, version = search.partition(":")
    if name:
        modules = modules.filter(module_name=name)
    return modules.filter(version=int(version)) if version else modules
