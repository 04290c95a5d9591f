"""Read models of nodes and rollouts, written by `projections` alone; and at the end what is no projection."""

from typing import ClassVar

from django.db import models

from eventstore import Metadata, RecordedEvent, begun_by
from modules_app.operating_systems import fitting_platforms
from rollout.messages import Action


class Node(models.Model):
    name = models.CharField(primary_key=True, max_length=128)
    phase = models.CharField(max_length=20)
    online = models.BooleanField()
    draining = models.BooleanField()
    platform = models.CharField(max_length=64)
    #: Such as `rhel9`; empty if the node does not say.
    operating_system = models.CharField(max_length=32, default="", db_default="")
    server = models.CharField(max_length=32)
    server_version = models.CharField(max_length=32)
    role = models.CharField(max_length=16)
    #: Host names under which requests mean this node.
    api_hosts = models.JSONField()
    #: Labels that the agent reports, and those an operator gave, which stand above them.
    agent_labels = models.JSONField()
    labels = models.JSONField()
    #: Names of the modules that the server has loaded and Modfleet did not bring.
    other_modules = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    #: Drifts that were recorded and have not ended, each as [module_name, version].
    drifts = models.JSONField(default=list)
    #: When it was last heard of again after it had been offline.
    came_back_at = models.DateTimeField(null=True)
    joined_at = models.DateTimeField()
    #: Position of the event by which it first joined: the vendor's API wants a number.
    joined_position = models.BigIntegerField()
    #: Of the event by which it came to its phase.
    phase_position = models.BigIntegerField(default=0, db_default=0)
    phase_event_id = models.UUIDField(null=True)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def fitting_platforms(self) -> tuple[str, ...]:
        """The platforms of the builds that it can use, the closest first."""
        return fitting_platforms(self.platform, self.operating_system)


class NodeModule(models.Model):
    """One module version on one node: what is wanted there, and what its agent sees.

    `desired` and `observed` are `load`, `files` or `absent`. What is wanted is copied from `Placement.state`.
    """

    #: `<node>:<module_name>:<version>`
    key = models.CharField(primary_key=True, max_length=300)
    node = models.CharField(max_length=128, db_index=True)
    module_name = models.CharField(max_length=128)
    version = models.BigIntegerField()
    desired = models.CharField(max_length=10)
    desired_sha256 = models.CharField(max_length=64)
    observed = models.CharField(max_length=10)
    content_sha256 = models.CharField(max_length=64)
    #: The rollout whose operation was released and has not ended, or empty.
    rollout = models.CharField(max_length=32)
    #: The newest operation that has ended on the module was about this version, and failed.
    failed = models.BooleanField()
    #: Since when it is not as the last operation left it.
    drifted_at = models.DateTimeField(null=True)
    #: A `ModuleState`.
    state = models.CharField(max_length=10)

    class Meta:
        verbose_name = "module on a node"
        verbose_name_plural = "modules on nodes"
        ordering: ClassVar = ["node", "module_name", "version"]
        indexes: ClassVar = [models.Index(fields=["module_name", "version"], name="nodes_by_module")]

    def __str__(self) -> str:
        return self.key


class Caused(models.Model):
    """A row that knows its newest event, and the request that it follows."""

    #: None, and empty, in rows that an older version has written.
    event_id = models.UUIDField(null=True)
    correlation_id = models.CharField(max_length=64, default="", db_default="")
    requested_by = models.CharField(max_length=160, default="", db_default="")

    class Meta:
        abstract = True

    def follow(self, recorded: RecordedEvent) -> None:
        """The request of the event is the one that the row follows from now on."""
        self.correlation_id, self.requested_by = recorded.metadata.correlation_id, recorded.metadata.requested_by

    def leads_to(self, actor: str) -> Metadata:
        """Metadata of what `actor` does because of the newest event. Until a row of an older version is rebuilt, that is
        a story of its own."""
        if self.event_id is None:
            return begun_by(actor)
        metadata = Metadata(actor=actor, requested_by=self.requested_by, correlation_id=self.correlation_id)
        return metadata.because_of(self.event_id)


class Rollout(Caused):
    uid = models.CharField(primary_key=True, max_length=32)
    action = models.CharField(max_length=10)
    module_name = models.CharField(max_length=128)
    version = models.BigIntegerField()
    activation = models.CharField(max_length=10)
    phase = models.CharField(max_length=24)
    reason = models.CharField(max_length=40)
    message = models.TextField(default="")
    origin = models.CharField(max_length=16)
    #: As it is shown: a login name, or `system:reconciler`.
    actor = models.CharField(max_length=150)
    retry_of = models.CharField(max_length=32)
    rollback_of = models.CharField(max_length=32, default="")
    #: Uids of the rollouts that were started to follow it: the newest that try its nodes again, and the one that is
    #: its rollback, however that ends.
    retried_by = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    rolled_back_by = models.CharField(max_length=32, default="", db_default="")
    #: What its rollback has left alone: the `count` of the nodes, the first of them `by` rollout, and a `text`.
    left_alone = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()))
    #: Uids of the rollouts that have to succeed first.
    needs = models.JSONField(default=list)
    named = models.BooleanField()
    strategy = models.JSONField()
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    total = models.IntegerField()
    scheduled = models.IntegerField(default=0)
    queued = models.IntegerField(default=0)
    running = models.IntegerField(default=0)
    succeeded = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)
    timed_out = models.IntegerField(default=0)
    canceled = models.IntegerField(default=0)
    skipped = models.IntegerField(default=0)
    rolled_back = models.IntegerField(default=0)
    #: How many of the canceled ones a newer rollout has taken over.
    superseded = models.IntegerField(default=0)
    #: Nodes that could not be given back what they had.
    unrestored = models.IntegerField(default=0)
    #: Automatic retries so far.
    retries = models.IntegerField(default=0)
    #: Nodes that have not failed, but an earlier attempt has failed or timed out: it was retried or undone.
    failed_before = models.IntegerField(default=0, db_default=0)
    #: What stopped it, the newest last: `outcomes.stop_of`.
    stops = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    #: What people did beside that, and which rollouts took over nodes, the newest last: `outcomes.action_of`.
    actions = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    #: One for each wave, in order: `phase`, `total` and the counters, times.
    waves = models.JSONField(default=list)
    #: Its `RolloutState`, as JSON.
    state = models.TextField(default="")
    #: Last success, or when the clock of the progress deadline was last started.
    progressed_at = models.DateTimeField(null=True)
    #: Seconds that the newest nodes took that succeeded, and the slowest nodes of all as [node, seconds].
    durations = models.JSONField(default=list)
    slowest = models.JSONField(default=list)
    #: Position of its first event, and of its newest.
    started_position = models.BigIntegerField(unique=True)
    position = models.BigIntegerField()
    #: The answer to `GET /v2/rollouts/{uid}`, ready to be sent.
    document = models.TextField()

    class Meta:
        ordering: ClassVar = ["-started_position"]
        indexes: ClassVar = [models.Index(fields=["phase"], name="rollouts_by_phase")]

    def __str__(self) -> str:
        return f"{self.title} ({self.uid})"

    @property
    def title(self) -> str:
        """What it does. A rollback brings each node what it had, whatever that was."""
        what = f"{self.module_name} {self.version}"
        if not self.rollback_of:
            return f"{self.action} {what}"
        return f"roll back {what}" if self.action == Action.REMOVE else f"roll back the removal of {what}"


class CurrentOperations(models.Manager["Operation"]):
    def get_queryset(self) -> models.QuerySet["Operation"]:
        return super().get_queryset().filter(former=False)


class Operation(Caused):
    """What one rollout does to one node. A retry and an undo are operations of their own: the attempt before stays as it
    ended, as a former one. `objects` has the newest attempt of each node in each rollout, `attempts` has all."""

    #: `<rollout>:<node>`, and of a former one `<rollout>:<node>:<generation>:<attempt>`
    key = models.CharField(primary_key=True, max_length=190)
    #: A newer attempt of the same rollout follows. Nothing changes it any more. The database has no default for it: an
    #: older version's process would take former attempts for newest ones, and so it can write none.
    former = models.BooleanField(default=False)
    #: The phase in which the node has answered after it had ended without its answer, or empty.
    late = models.CharField(max_length=12, default="", db_default="")
    #: An attempt before it, in the same rollout, failed or timed out.
    failed_before = models.BooleanField(default=False, db_default=False)
    rollout = models.CharField(max_length=32)
    node = models.CharField(max_length=128)
    module_name = models.CharField(max_length=128)
    version = models.BigIntegerField()
    action = models.CharField(max_length=10)
    activation = models.CharField(max_length=10)
    content_sha256 = models.CharField(max_length=64)
    generation = models.IntegerField()
    attempt = models.IntegerField()
    ordinal = models.IntegerField()
    #: The wave it is in; -1 for one that is skipped from the start.
    wave = models.IntegerField(default=0)
    #: It gives back what was there before; `undoes` is the version that has to go then.
    rollback = models.BooleanField(default=False)
    undoes = models.BigIntegerField(null=True)
    #: The reconciler's: an operation of a person takes its place.
    yields = models.BooleanField(default=False, db_default=False)
    #: What the node had of the module when this was released, as `version`, `activation` and `content_sha256`, by
    #: version. None until then, and where an older version has released it.
    had = models.JSONField(null=True)
    #: It was released, in this attempt or an earlier one.
    touched = models.BooleanField(default=False)
    #: Its node has not failed in this rollout.
    healthy = models.BooleanField(default=True)
    phase = models.CharField(max_length=12)
    reason = models.CharField(max_length=40)
    message = models.TextField()
    #: Waits for an older operation that had started.
    behind = models.BooleanField()
    #: As it is shown: the person who asked for the rollout, the retry or the rollback; else who started the rollout.
    asked_by = models.CharField(max_length=160, default="", db_default="")
    #: It was retried or undone by the strategy, and not at a person's request.
    automatic = models.BooleanField(default=False, db_default=False)
    #: As it is shown: the person who canceled it, or whose newer rollout took its place. Empty if a rule or nobody did.
    canceled_by = models.CharField(max_length=160, default="", db_default="")
    scheduled_at = models.DateTimeField()
    #: Position of the event by which it was scheduled.
    scheduled_position = models.BigIntegerField(default=0, db_default=0)
    #: Not to be released before then.
    ready_at = models.DateTimeField(null=True)
    #: When the node was asked to give it up.
    cancel_requested_at = models.DateTimeField(null=True)
    released_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    #: There exactly when its phase is final.
    finished_at = models.DateTimeField(null=True)
    #: When it times out; there exactly while it is in hand.
    deadline_at = models.DateTimeField(null=True)
    seconds = models.FloatField(null=True)
    #: How long the node's server answered no client while it replaced one version by another.
    swap_seconds = models.FloatField(null=True)

    objects = CurrentOperations()
    attempts = models.Manager["Operation"]()

    class Meta:
        ordering: ClassVar = ["rollout", "ordinal"]
        indexes: ClassVar = [
            models.Index(fields=["rollout", "phase", "ordinal"], name="operations_of_rollout"),
            models.Index(fields=["rollout", "node"], name="operation_of_node"),
            models.Index(fields=["node", "module_name"], name="operations_of_placement"),
            # By nulls, not by phases: SQLite uses a partial index only for a condition of the very same words, and a
            # plain one of the phase not at all once it has counted that nearly all have the same.
            models.Index(
                fields=["deadline_at"], name="operations_in_hand", condition=models.Q(deadline_at__isnull=False)
            ),
            models.Index(fields=["node"], name="operations_unfinished", condition=models.Q(finished_at__isnull=True)),
            models.Index(fields=["node"], name="operations_behind", condition=models.Q(behind=True)),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def newest_attempt(self) -> int:
        """The number of the newest attempt, 0 if the node was never asked. A retry that waits for its release is none."""
        if not self.touched:
            return 0
        return self.attempt if self.released_at else self.attempt - 1


class ClusterTarget(models.Model):
    """Which version of a module the whole fleet is to have, so that late joiners get it: what the last rollout brought
    that succeeded and named no nodes. `version` is None where that removed the module."""

    module_name = models.CharField(primary_key=True, max_length=128)
    version = models.BigIntegerField(null=True)
    activation = models.CharField(max_length=10)
    rollout = models.CharField(max_length=32)
    #: Position at which that rollout was started: what is released to a node after it counts more.
    position = models.BigIntegerField()
    #: The same fields of the target before, for a rollback; None if there was none.
    former = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"{self.module_name} {self.version}"


class FleetFreeze(models.Model):
    """Whether anything may be released; no row while nobody has ever frozen the fleet."""

    id = models.IntegerField(primary_key=True, default=1)
    frozen = models.BooleanField()
    reason = models.TextField()
    actor = models.CharField(max_length=150)
    #: Of the newest event.
    position = models.BigIntegerField(default=0, db_default=0)
    event_id = models.UUIDField(null=True)
    frozen_at = models.DateTimeField()
    thawed_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.reason if self.frozen else "not frozen"


class Placement(models.Model):
    """A module on a node, whatever its version."""

    #: `<node>:<module_name>`
    key = models.CharField(primary_key=True, max_length=257)
    node = models.CharField(max_length=128)
    module_name = models.CharField(max_length=128)
    #: Of the newest release, None if nothing was ever released there.
    released_position = models.BigIntegerField(null=True)
    #: Its `PlacementState`, as JSON.
    state = models.TextField()
    #: The newest operation that was released has ended without success.
    undone = models.BooleanField()

    class Meta:
        db_table = "rollout_placement_state"
        indexes: ClassVar = [
            models.Index(fields=["node", "module_name"], name="placements_of_node"),
            models.Index(fields=["node"], name="placements_undone", condition=models.Q(undone=True)),
        ]

    def __str__(self) -> str:
        return self.key


class TimelineEntry(models.Model):
    """Which events tell the story of a rollout."""

    position = models.BigIntegerField(primary_key=True)
    rollout = models.CharField(max_length=32)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["rollout", "position"], name="timeline_of_rollout")]

    def __str__(self) -> str:
        return f"{self.rollout} {self.position}"


# --- Not projections: a rebuild leaves them alone. --------------------------------------------------------------------


class Liveness(models.Model):
    """When a node was last heard of, by the database's clock."""

    node = models.CharField(primary_key=True, max_length=128)
    last_seen = models.DateTimeField()
    #: When its agent last started.
    hello_at = models.DateTimeField(null=True)
    interval_seconds = models.FloatField()
    #: Newest generation in the node's journal, by module.
    generations = models.JSONField()
    #: Which start of its agent speaks, the number of the newest look, and the starts before: `decider.node.Heard`.
    incarnation = models.CharField(max_length=64, default="")
    counter = models.BigIntegerField(default=0)
    former = models.JSONField(default=list)
    #: By how much the node's clock is ahead of the database's; None while it has not said.
    clock_skew_seconds = models.FloatField(null=True)
    #: What is wrong with what it said: `counter`, `generations`, `contact`, `changes`.
    doubts = models.JSONField(default=list)
    #: By kind of change, from when on as many may be recorded at once as at first, Unix time: `decider.pace`.
    pace = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()))

    class Meta:
        indexes: ClassVar = [models.Index(fields=["last_seen"], name="nodes_by_last_seen")]

    def __str__(self) -> str:
        return self.node


class Dispatch(models.Model):
    """The outbox: how often and when the command of a released operation was published, and who is about to.

    `publishes` counts from the newest release on, or from the agent's newest start.
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


class DroppedMessages(models.Model):
    """How many messages the control workers have dropped, by queue and reason."""

    #: `<queue>:<reason>`
    key = models.CharField(primary_key=True, max_length=80)
    queue = models.CharField(max_length=40)
    reason = models.CharField(max_length=20)
    count = models.BigIntegerField()

    def __str__(self) -> str:
        return self.key
