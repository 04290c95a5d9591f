"""Rows that are no projections: they are not in the log, and a rebuild leaves them unchanged."""

from typing import ClassVar

from django.db import models


class Liveness(models.Model):
    """When a node last sent a heartbeat, by the database's clock."""

    node = models.CharField(primary_key=True, max_length=128)
    last_seen = models.DateTimeField()
    #: When its agent last started.
    hello_at = models.DateTimeField(null=True)
    #: When it last sent a heartbeat with facts of its server. `last_seen` counts reports too.
    facts_at = models.DateTimeField(null=True)
    #: When it last said that an operation restarts its server.
    restarting_at = models.DateTimeField(null=True)
    interval_seconds = models.FloatField()
    #: Newest generation in the node's journal, by module.
    generations = models.JSONField()
    #: The current start of its agent, the number of the newest heartbeat, and the starts before: `domain.node.inventory_order`.
    incarnation = models.CharField(max_length=64, default="")
    counter = models.BigIntegerField(default=0)
    former = models.JSONField(default=list)
    #: By how many seconds the node's clock is ahead of the database's; None if the node has not reported it.
    clock_skew_seconds = models.FloatField(null=True)
    #: What is wrong with its heartbeats: `counter`, `generations`, `contact`, `changes`.
    doubts = models.JSONField(default=list)
    #: The message format that its agent speaks, what the agent can do, and the agent's release.
    protocol = models.IntegerField(default=0, db_default=0)
    capabilities = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    agent_version = models.CharField(max_length=32, default="", db_default="")
    #: Tells the machine or container of its agent apart from others.
    host = models.CharField(max_length=64, default="", db_default="")
    #: Other starts of an agent with the node's key that are heard, and when: `delivery.ingestion.rivals`.
    rival = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()))
    #: By kind of change, when its full allowance is restored, Unix time: `domain.node.pace`.
    pace = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()))

    class Meta:
        indexes: ClassVar = [models.Index(fields=["last_seen"], name="nodes_by_last_seen")]

    def __str__(self) -> str:
        return self.node


class NodeFacts(models.Model):
    """What the agent of a node has last reported about its server. Written with the liveness, at most once a minute if
    nothing has changed but numbers."""

    node = models.CharField(primary_key=True, max_length=128)
    #: A `messages.ServerState`, and the doctor's findings, None before the first ones.
    server = models.JSONField()
    doctor = models.JSONField(null=True)
    #: When the doctor ended, None if it is not known.
    examined_at = models.DateTimeField(null=True)
    #: How many checks have failed and warned, None without findings.
    failed = models.IntegerField(null=True)
    warned = models.IntegerField(null=True)
    #: None: not known.
    include_seen = models.BooleanField(null=True)
    #: Two lines of the server's configuration load the same module.
    has_conflict = models.BooleanField(default=False)
    #: It loads modules at its start only (`enable-module-command no`), and its agent restarts it.
    refuses_load = models.BooleanField(default=False, db_default=False, db_index=True)
    #: `restart` while its agent restarts the server, `recovery` if that has failed, or empty.
    maintenance = models.CharField(max_length=32, default="", db_default="", db_index=True)
    #: The newest that is known, also while the server is away.
    run_id = models.CharField(max_length=64, default="")
    #: When the server's `run_id` has changed, the newest last, Unix time; and when it did for the third time, counted from
    #: the newest.
    restarts = models.JSONField(default=list)
    third_restart_at = models.DateTimeField(null=True)
    #: A module may have harmed the server: `domain.node.harm`.
    suspect = models.BooleanField(default=False, db_default=False, db_index=True)
    reported_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "node facts"

    def __str__(self) -> str:
        return self.node


class ShardMember(models.Model):
    """A node's place in its shard, and if its server is ready for a change, by the newest facts of all nodes.

    Written with the node's facts, and for the other nodes of a shard when one of them changes.
    """

    node = models.CharField(primary_key=True, max_length=128)
    #: The shard's name: the node at its top, or the address of a master that is no node. A server alone is a shard.
    shard = models.CharField(max_length=264, db_index=True)
    #: `master`, `replica`, or empty if it is not known.
    role = models.CharField(max_length=16)
    #: The node that is its master; empty for a master, and if the master is no node.
    master = models.CharField(max_length=128, db_index=True)
    #: 0 for the node at the top, 1 for its replicas, 2 for their replicas.
    depth = models.IntegerField()
    #: The nodes that copy it, by their own facts or by its own, or that copy an unmanaged replica of it, by name. `master` of
    #: one may name another node.
    replicas = models.JSONField(default=list)
    #: Those of them that it does not list, and those that it lists, but that say something else.
    unlisted = models.JSONField(default=list, db_default=[])
    contrary = models.JSONField(default=list, db_default=[])
    #: Addresses of its replicas that are no nodes and that no person has accepted, and of those that a person has accepted.
    unmanaged = models.JSONField(default=list)
    ignored = models.JSONField(default=list)
    #: The address of its master, if that is no node.
    unmanaged_master = models.CharField(max_length=264, default="")
    #: True if only it says that it copies its master: `domain.topology.places.Place`.
    doubted = models.BooleanField(default=False, db_default=False)
    #: Nodes that say that they are one of these servers, but are not matched.
    claimants = models.JSONField(default=list, db_default=[])
    #: The newest `messages.Replication`, and the `ServerFacts` that the places of all nodes are computed from, as JSON. They
    #: stay while the server is not known.
    replication = models.JSONField()
    facts = models.TextField(default="{}")
    #: When the node may change its place `delivery.ingestion.shard_members.BURST` times again, Unix time.
    pace = models.FloatField(default=0.0)
    #: Slots that migrate, as far as this server knows: each a `messages.SlotMigration`.
    migrations = models.JSONField(default=list)
    #: Why the server is not ready for a change: `server_not_ready`, `backup_running`, or empty; in words; and since when.
    not_ready = models.CharField(max_length=32, default="")
    not_ready_message = models.CharField(max_length=1000, default="")
    not_ready_since = models.DateTimeField(null=True)
    #: The machine or container of its agent.
    host = models.CharField(max_length=64, db_index=True)
    #: The shards that it has left within `queries.turns.MOVING_SECONDS` before its newest change, and when: Unix time.
    former_shards = models.JSONField(default=dict, db_default={})

    def __str__(self) -> str:
        return self.node


class RolloutWake(models.Model):
    """A rollout that may have a next step because places of nodes have changed, which is no event. Written with the places,
    so that a worker that dies after the commit loses nothing."""

    rollout = models.CharField(primary_key=True, max_length=32)
    #: Another one after each change.
    stamp = models.UUIDField()

    def __str__(self) -> str:
        return self.rollout


class Dispatch(models.Model):
    """The outbox: how often and when the command of a released operation was published, and who publishes it now.

    `publishes` counts since the newest release, or since the agent's newest start.
    """

    #: The operation's key.
    operation = models.CharField(primary_key=True, max_length=161)
    publishes = models.IntegerField(default=0)
    published_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)
    lease = models.UUIDField(null=True, db_index=True)
    leased_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.operation


class ScratchSuccess(models.Model):
    """A load in a scratch server that has succeeded on a node: nodes that can run none rely on it."""

    #: `messages.scratch_key`, as the node says.
    key = models.CharField(max_length=64)
    content_sha256 = models.CharField(max_length=64, db_index=True)
    #: The node that has reported it, and its `messages.ScratchLoad`.
    node = models.CharField(max_length=128)
    learned = models.JSONField()
    recorded_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "scratch successes"
        constraints: ClassVar = [
            # A node that lies takes no key from another build, and no other node's word.
            models.UniqueConstraint(fields=["content_sha256", "key", "node"], name="one_success_of_a_node")
        ]

    def __str__(self) -> str:
        return self.key


class ServerLog(models.Model):
    """What the server of a node logged during an attempt that failed. The lines may contain data of clients, although the
    agent redacts them: they are in no event, and are deleted after MODFLEET_FAILURE_LOG_DAYS."""

    rollout = models.CharField(max_length=32)
    node = models.CharField(max_length=128)
    generation = models.IntegerField()
    attempt = models.IntegerField()
    lines = models.JSONField()
    #: The line that tells why; empty if none does: `domain.server_words`.
    telling = models.CharField(max_length=300)
    recorded_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["rollout", "node", "generation", "attempt"], name="one_log_for_an_attempt")
        ]

    def __str__(self) -> str:
        return f"{self.rollout}:{self.node}:{self.generation}:{self.attempt}"


class DroppedMessages(models.Model):
    """How many messages the control workers dropped, by queue and reason."""

    #: `<queue>:<reason>`
    key = models.CharField(primary_key=True, max_length=80)
    queue = models.CharField(max_length=40)
    reason = models.CharField(max_length=20)
    count = models.BigIntegerField()

    def __str__(self) -> str:
        return self.key
