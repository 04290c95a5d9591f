"""Nodes and their modules."""

from typing import Any

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from api.fields import StrictCharField, StrictSerializer
from rollout.domain.node.state import Identity, NodePhase
from rollout.domain.topology.addresses import PATTERN
from rollout.messages import ChangeKind, FindingStatus, Reason
from rollout.projections.node_modules import ModuleState


class LabelsField(serializers.DictField):
    child = StrictCharField(max_length=256, allow_blank=True)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        labels: dict[str, str] = super().to_internal_value(data)
        if len(labels) > 64 or any(not 1 <= len(name) <= 128 for name in labels):
            raise serializers.ValidationError("At most 64 labels, with names of 1 to 128 characters.")
        return labels


@extend_schema_field({"type": "string", "pattern": f"^({PATTERN})?$", "maxLength": 264})
class _Address(StrictCharField):
    """An address, or nothing."""


class NodeChangesSerializer(StrictSerializer):
    labels = LabelsField(required=False)
    address = _Address(
        required=False,
        allow_blank=True,
        max_length=264,
        help_text="`host:port` by which other servers know the node's server; empty: as the node reports",
    )

    def validate(self, data: Any) -> Any:
        if not data:
            raise serializers.ValidationError("Give labels or address.")
        return data


class AcceptSerializer(StrictSerializer):
    key = StrictCharField(
        validators=[RegexValidator(r"\A[0-9a-f]{16}\Z", "Must be the id of a key: 16 hexadecimal digits.")],
        help_text="The id of the key that the node must have, as the installer printed it",
    )


class NodeModuleSerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    desired = serializers.ChoiceField(["load", "files", "absent"])
    desired_sha256 = serializers.CharField(allow_null=True)
    observed = serializers.ChoiceField(["load", "files", "absent"])
    state = serializers.ChoiceField(list(ModuleState))
    drifted_at = serializers.DateTimeField(
        allow_null=True, help_text="When it began to differ from what the last operation left"
    )
    drift_reason = serializers.ChoiceField(
        [Reason.UNLOADED_BY_HAND.value],
        allow_null=True,
        help_text="`unloaded_by_hand`: a person unloaded it, and it is not loaded again automatically. Null: not known",
    )
    content_sha256 = serializers.CharField(allow_null=True)
    loaded = serializers.BooleanField()


class NodeWarningSerializer(serializers.Serializer[Any]):
    code = serializers.ChoiceField(
        [
            "changes_too_often",
            "clock_skew",
            "degraded",
            "duplicate_agent",
            "implausible_counter",
            "implausible_generations",
            "pending",
            "revoked",
            "unsigned",
        ]
    )
    message = serializers.CharField()


class DegradationSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(help_text="For example `server_unreachable` or `doctor_failed`")
    message = serializers.CharField()


class DoctorSummarySerializer(serializers.Serializer[Any]):
    failed = serializers.IntegerField(help_text="Checks of the agent that fail")
    warned = serializers.IntegerField()


class NotReadySerializer(serializers.Serializer[Any]):
    reason = serializers.ChoiceField([Reason.SERVER_NOT_READY, Reason.BACKUP_RUNNING])
    message = serializers.CharField()
    since = serializers.DateTimeField()


class ServerModuleSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.IntegerField()
    path = serializers.CharField(allow_blank=True, help_text="Empty for a module that is built in")
    args = serializers.CharField(allow_blank=True)
    ours = serializers.BooleanField(help_text="Modfleet installed it")
    bundled = serializers.BooleanField(
        help_text="It is built into the server, or comes with the server's package: Modfleet leaves it as it is"
    )
    recent_calls = serializers.IntegerField(
        allow_null=True, help_text="Calls of its commands in the last 10 minutes; null: not known"
    )
    most_called = serializers.CharField(allow_blank=True, help_text="The command with the most of these calls")
    clients = serializers.ListField(
        child=serializers.CharField(), help_text="Clients whose last command was one of these, the newest first"
    )
    sha256 = serializers.CharField(
        allow_blank=True, help_text="Of the loaded file, if Modfleet did not install it; empty: not known"
    )
    line = serializers.CharField(
        allow_blank=True, help_text="Where the line is that loads it at the next start, if Modfleet did not install it"
    )
    obstacle = serializers.CharField(allow_blank=True, help_text="Why it cannot be adopted; empty if it can")
    by_person = serializers.BooleanField(help_text="A person or a tool must change the line, while the adoption waits")
    adopted_from = serializers.CharField(
        allow_blank=True, help_text="It is adopted, and the server runs it from this path until its next start"
    )


class PlaceSerializer(serializers.Serializer[Any]):
    """A node's place in its shard."""

    name = serializers.CharField()
    phase = serializers.ChoiceField(list(NodePhase))
    role = serializers.CharField()
    shard = serializers.CharField(
        allow_null=True,
        help_text="The node at the top of its shard, or the address of a master that is no node; null if it is not known",
    )
    master = serializers.CharField(
        allow_null=True,
        help_text="Of a replica: the node that is its master, or the address of a master that is no node",
    )
    depth = serializers.IntegerField(
        allow_null=True, help_text="0 for the node at the top of the shard, 1 for its replicas, 2 for their replicas"
    )
    replicas = serializers.ListField(child=serializers.CharField(), help_text="The nodes that are its replicas")
    unmanaged_replicas = serializers.ListField(
        child=serializers.CharField(), help_text="Addresses of its replicas that are no nodes"
    )
    ignored_replicas = serializers.ListField(
        child=serializers.CharField(),
        help_text="Addresses of its replicas that are no nodes and that a person has accepted",
    )
    sentinels = serializers.IntegerField(
        allow_null=True, help_text="Sentinels that watch its server; null if not known"
    )
    not_ready = NotReadySerializer(allow_null=True, help_text="Why its server is not ready for a change; null if it is")


class NodeSerializer(PlaceSerializer):
    identity = serializers.ChoiceField(list(Identity), help_text="How its messages are known to be from it")
    keys = serializers.ListField(
        child=serializers.CharField(),
        help_text="Ids of its keys, the one in use first. Compare it with the one that the installer printed before you accept the node",
    )
    duplicate = serializers.BooleanField(help_text="Two agents with its key are heard")
    degraded = DegradationSerializer(allow_null=True, help_text="Null if the node's server can be used")
    last_seen = serializers.DateTimeField(allow_null=True)
    clock_skew_seconds = serializers.FloatField(
        allow_null=True, help_text="Seconds by which the node's clock was ahead at its last heartbeat"
    )
    warnings = NodeWarningSerializer(many=True)
    platform = serializers.CharField(help_text="For example `linux/x86_64`")
    operating_system = serializers.CharField(
        allow_blank=True, help_text="For example `rhel9`; empty if the node does not report it"
    )
    server = serializers.CharField()
    server_version = serializers.CharField()
    address = serializers.CharField(
        allow_null=True, help_text="The address by which other servers know its server, if a person has set one"
    )
    labels = serializers.DictField(child=serializers.CharField())
    other_modules = serializers.ListField(
        child=serializers.CharField(),
        help_text="Names of the modules that its server has loaded and Modfleet did not install",
    )
    foreign_modules = ServerModuleSerializer(
        many=True,
        help_text="These modules with what their adoption needs, as of the newest heartbeat; empty with `as_of`",
    )
    doctor_summary = DoctorSummarySerializer(allow_null=True, help_text="Null if the agent has reported no checks")
    modules = NodeModuleSerializer(many=True)


class ReplicaSerializer(serializers.Serializer[Any]):
    address = serializers.CharField()
    state = serializers.CharField(allow_blank=True)
    lag_bytes = serializers.IntegerField(allow_null=True, help_text="By how much its replication offset is behind")


class ConfigurationChangeSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.ChoiceField(list(ChangeKind))
    at = serializers.DateTimeField(help_text="By the node's clock")
    message = serializers.CharField()


class SlotMigrationSerializer(serializers.Serializer[Any]):
    slots = serializers.CharField(help_text="For example `93 100-110`")
    source = serializers.CharField()  # type: ignore[assignment]  # the field is called so; the class is documentation
    target = serializers.CharField()
    atomic = serializers.BooleanField(help_text="Valkey moves all of these slots at once")


class ReplicationSerializer(serializers.Serializer[Any]):
    role = serializers.CharField(allow_blank=True)
    master = serializers.CharField(allow_blank=True)
    replicas = serializers.ListField(child=serializers.CharField())


class ServerStateSerializer(serializers.Serializer[Any]):
    """Null, or an empty text: not known."""

    problem = serializers.CharField(allow_blank=True, help_text="Why the server cannot be used; empty if it can")
    message = serializers.CharField(allow_blank=True)
    run_id = serializers.CharField(allow_blank=True)
    uptime_seconds = serializers.IntegerField(allow_null=True)
    crash = serializers.CharField(
        allow_blank=True, help_text="What says that the process before this one crashed; empty if nothing does"
    )
    role = serializers.CharField(allow_blank=True)
    master = serializers.CharField(allow_blank=True, help_text="Of a replica: `host:port`")
    link_status = serializers.CharField(allow_blank=True)
    link_down_seconds = serializers.IntegerField(
        allow_null=True, help_text="How long the link of a replica to its master has been down"
    )
    replicas = ReplicaSerializer(many=True, help_text="The first 32")
    replica_count = serializers.IntegerField(allow_null=True)
    loading = serializers.BooleanField(allow_null=True)
    async_loading = serializers.BooleanField(allow_null=True)
    aof_enabled = serializers.BooleanField(allow_null=True)
    aof_last_write_status = serializers.CharField(allow_blank=True)
    rdb_last_bgsave_status = serializers.CharField(allow_blank=True)
    save_points = serializers.CharField(allow_null=True, allow_blank=True)
    cluster_enabled = serializers.BooleanField(allow_null=True)
    cluster_state = serializers.CharField(allow_blank=True)
    migrating_slots = serializers.IntegerField(allow_null=True)
    unexpected_error_replies = serializers.IntegerField(allow_null=True)
    used_memory = serializers.IntegerField(allow_null=True, help_text="Bytes")
    max_memory = serializers.IntegerField(allow_null=True, help_text="Bytes; 0 means no limit")
    enable_module_command = serializers.CharField(allow_blank=True)
    include_seen = serializers.BooleanField(
        allow_null=True, help_text="The server's configuration includes the agent's file"
    )
    would_start = serializers.CharField(
        allow_blank=True,
        help_text="Result of the start check: `yes`, `no` or `unknown`; empty if the agent has not checked",
    )
    would_start_reason = serializers.CharField(allow_blank=True)
    modules = ServerModuleSerializer(many=True, help_text="The first 64")
    module_count = serializers.IntegerField(allow_null=True)
    persistence = serializers.CharField(
        allow_blank=True,
        help_text="Who owns the lines that a start loads: `include`, `rewrite` or `external`",
    )
    to_do = serializers.CharField(
        allow_blank=True, help_text="What the owner of the server's configuration must change"
    )
    configuration_changes = ConfigurationChangeSerializer(many=True, help_text="The newest, in order")
    addresses = serializers.ListField(
        child=serializers.CharField(), help_text="Each `host:port` by which other servers may know this one"
    )
    network = serializers.CharField(allow_blank=True, help_text="Where its loopback addresses mean it")
    replication_id = serializers.CharField(allow_blank=True, help_text="All servers of a shard have the same one")
    node_id = serializers.CharField(allow_blank=True, help_text="In the cluster")
    master_node_id = serializers.CharField(allow_blank=True, help_text="In the cluster")
    replica_node_ids = serializers.ListField(child=serializers.CharField(), help_text="In the cluster")
    backups = serializers.IntegerField(
        allow_null=True, help_text="Clients that only copy the data, such as `redis-cli --rdb`"
    )
    sentinels = serializers.IntegerField(allow_null=True, help_text="Sentinels that watch the server")
    master_sync_in_progress = serializers.BooleanField(allow_null=True)
    min_replicas_to_write = serializers.IntegerField(
        allow_null=True, help_text="With fewer good replicas, a master accepts no writes"
    )
    full_coverage = serializers.BooleanField(
        allow_null=True, help_text="`cluster-require-full-coverage`: without one master, the whole cluster stops"
    )
    restart = serializers.CharField(
        allow_blank=True,
        help_text="How the agent restarts it: `shutdown`, `systemd`, `command`, `external` or `none`; empty from an older agent",
    )
    restart_problem = serializers.CharField(
        allow_blank=True, help_text="Why the agent must not restart it, with what to do; empty if it may"
    )
    failover = serializers.CharField(
        allow_blank=True,
        help_text="How the agent makes a replica the master before a restart: `sentinel`, `command`, `cluster` or `none`; empty "
        "from an older agent",
    )
    maintenance = serializers.CharField(
        allow_blank=True,
        help_text="`restart` while an operation restarts it, `recovery` if that has failed and it is not in service yet; else empty",
    )
    withheld = serializers.BooleanField(
        help_text="The agent keeps the server from becoming the master, because other copies of its shard have another version"
    )
    save_problem = serializers.CharField(
        allow_blank=True, help_text="Why the server must not start a child process now; empty if it may"
    )
    full_syncs = serializers.IntegerField(
        allow_null=True, help_text="How many full synchronizations a replica has begun in the last 10 minutes"
    )
    migrations = SlotMigrationSerializer(
        many=True, allow_null=True, help_text="Of slots of this shard, as far as this server knows"
    )
    replication = ReplicationSerializer(
        allow_null=True, help_text="The server must still have this place when an operation changes it"
    )
    reported_at = serializers.DateTimeField()


class FindingSerializer(serializers.Serializer[Any]):
    check = serializers.CharField()
    status = serializers.ChoiceField(list(FindingStatus))
    message = serializers.CharField(allow_blank=True)
    fix = serializers.CharField(allow_blank=True)


class NodeDetailSerializer(NodeSerializer):
    server_state = ServerStateSerializer(allow_null=True, help_text="Null if the agent has reported none")
    doctor = FindingSerializer(many=True, allow_null=True, help_text="The newest results of `modfleet agent doctor`")
    examined_at = serializers.DateTimeField(allow_null=True, help_text="When the doctor ended; null: not known")
