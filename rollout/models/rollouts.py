"""Rollouts, their operations and their timelines."""

from typing import ClassVar

from django.db import models

from eventstore import Metadata, RecordedEvent, begun_by
from rollout.messages import Action


class Caused(models.Model):
    """A row that knows its newest event, and the request that led to it."""

    #: None, and empty, in rows that an older version wrote.
    event_id = models.UUIDField(null=True)
    correlation_id = models.CharField(max_length=64, default="", db_default="")
    requested_by = models.CharField(max_length=160, default="", db_default="")

    class Meta:
        abstract = True

    def adopt_request(self, recorded: RecordedEvent) -> None:
        """Take over the request of the event."""
        self.correlation_id, self.requested_by = recorded.metadata.correlation_id, recorded.metadata.requested_by

    def leads_to(self, actor: str) -> Metadata:
        """Return the metadata of what `actor` does because of the newest event. A row of an older version names no
        event: until it is rebuilt, a correlation of its own begins."""
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
    #: As shown: a login name, or `system:reconciler`.
    actor = models.CharField(max_length=150)
    retry_of = models.CharField(max_length=32)
    rollback_of = models.CharField(max_length=32, default="")
    #: Uids of the rollouts that follow it: the newest retries of its nodes, and its rollback, whatever their phases.
    retried_by = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    rolled_back_by = models.CharField(max_length=32, default="", db_default="")
    #: What its rollback left unchanged: the `count` of the nodes, the first of them `by` rollout, and a `text`.
    left_alone = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()))
    #: Uids of the rollouts that must succeed first.
    needs = models.JSONField(default=list)
    named = models.BooleanField()
    #: A removal that unloads the module even if its commands were called lately.
    even_if_used = models.BooleanField(default=False, db_default=False)
    #: An installation that takes over modules that are loaded already.
    adopt = models.BooleanField(default=False, db_default=False)
    #: How servers come to load the version, and which of them may be restarted for it.
    ways = models.CharField(max_length=10, default="load", db_default="load")
    may_interrupt = models.BooleanField(default=False, db_default=False)
    may_discard_data = models.BooleanField(default=False, db_default=False)
    #: Masters become masters again after it; and the rollout after which this one does that.
    failback = models.BooleanField(default=False, db_default=False)
    failback_of = models.CharField(max_length=32, default="", db_default="")
    #: The rollout after it that did that, whatever its outcome.
    failed_back_by = models.CharField(max_length=32, default="", db_default="")
    #: What its nodes have shown of the way back. `open`: one can go back. `not_open`: the first one for which that is closed, or
    #: else not known: `node`, and the fields of a `messages.WayBack`. None: no node has replaced a version with data types.
    way_back = models.JSONField(null=True)
    #: That it is one-way: such a `not_open`, and `promoted`: a person has accepted that. None: it is not.
    one_way = models.JSONField(null=True)
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
    #: How many of the canceled ones a newer rollout took over.
    superseded = models.IntegerField(default=0)
    #: Nodes that could not be restored.
    unrestored = models.IntegerField(default=0)
    #: Automatic retries so far.
    retries = models.IntegerField(default=0)
    #: Nodes that have not failed now, but whose earlier attempt failed or timed out, and was retried or undone.
    failed_before = models.IntegerField(default=0, db_default=0)
    #: What stopped it, the newest last: `outcomes.stop_of`.
    stops = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    #: What else people did, and which rollouts took over nodes, the newest last: `outcomes.action_of`.
    actions = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    #: One for each wave, in order: `phase`, `total`, the counters, and times.
    waves = models.JSONField(default=list)
    #: Its `RolloutState`, as JSON.
    state = models.TextField(default="")
    #: When a node last succeeded, or when the progress deadline last started again.
    progressed_at = models.DateTimeField(null=True)
    #: Seconds of the newest nodes that succeeded; the slowest nodes of all, as [node, seconds].
    durations = models.JSONField(default=list)
    slowest = models.JSONField(default=list)
    #: Positions of its first and its newest event.
    started_position = models.BigIntegerField(unique=True)
    position = models.BigIntegerField()
    #: The answer to `GET /v2/rollouts/{uid}`, as JSON.
    document = models.TextField()

    class Meta:
        ordering: ClassVar = ["-started_position"]
        indexes: ClassVar = [models.Index(fields=["phase"], name="rollouts_by_phase")]

    def __str__(self) -> str:
        return f"{self.title} ({self.uid})"

    @property
    def title(self) -> str:
        """Return what it does, such as `install greet 2` or `roll back greet 2`."""
        what = f"{self.module_name} {self.version}"
        if self.failback_of:
            return f"fail back after {self.action} {what}"
        if not self.rollback_of:
            return f"{self.action} {what}"
        return f"roll back {what}" if self.action == Action.REMOVE else f"roll back the removal of {what}"


class CurrentOperations(models.Manager["Operation"]):
    def get_queryset(self) -> models.QuerySet["Operation"]:
        return super().get_queryset().filter(former=False)


class Operation(Caused):
    """What one rollout does to one node. A retry and an undo are operations of their own: the attempt before stays as a
    former one. `objects` has the newest attempt of each node in each rollout, `attempts` has all."""

    #: `<rollout>:<node>`, and of a former one `<rollout>:<node>:<generation>:<attempt>`
    key = models.CharField(primary_key=True, max_length=190)
    #: A newer attempt of the same rollout follows, and this row does not change any more. The database has no
    #: default: a process of an older version would take former attempts for newest ones, so it must not write any.
    former = models.BooleanField(default=False)
    #: The phase of the node's answer, if it came after the operation had ended; else empty.
    late = models.CharField(max_length=12, default="", db_default="")
    #: An earlier attempt in the same rollout failed or timed out.
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
    #: Its wave; -1 if the plan skipped the node.
    wave = models.IntegerField(default=0)
    #: It restores what the node had; `undoes` is the version that it removes.
    rollback = models.BooleanField(default=False)
    undoes = models.BigIntegerField(null=True)
    #: How the server comes to load or unload the version: `load` or `restart`.
    way = models.CharField(max_length=10, default="load", db_default="load")
    #: The node that becomes the master again, instead of this one. Empty: the operation changes a module.
    fails_back_to = models.CharField(max_length=128, default="", db_default="")
    #: The reconciler's, or a failback: a person's operation takes its place.
    yields = models.BooleanField(default=False, db_default=False)
    #: What the node had of the module at the release: `version`, `activation` and `content_sha256`, by version. None
    #: before the release, and if an older version of Modfleet released it.
    had = models.JSONField(null=True)
    #: It was released, in this attempt or an earlier one.
    touched = models.BooleanField(default=False)
    #: Its node has not failed in this rollout.
    healthy = models.BooleanField(default=True)
    phase = models.CharField(max_length=12)
    reason = models.CharField(max_length=40)
    message = models.TextField()
    #: It waits for an older operation that has started.
    behind = models.BooleanField()
    #: How often this attempt was released, and the server's place in its shard at the newest release: a `Replication`.
    releases = models.IntegerField(default=0, db_default=0)
    expects = models.JSONField(null=True)
    #: When its agent returned it.
    returned_at = models.DateTimeField(null=True)
    #: Since when it has waited for its server or its shard, over all releases that its agent has returned; and when that was
    #: last recorded, None after a release.
    waiting_since = models.DateTimeField(null=True)
    wait_noted_at = models.DateTimeField(null=True)
    #: Its node may still carry it out until then, although it was given back or has ended without an answer.
    may_run_until = models.DateTimeField(null=True)
    #: As shown: the person who asked for the rollout, the retry or the rollback; else the starter of the rollout.
    asked_by = models.CharField(max_length=160, default="", db_default="")
    #: The strategy retried or undid it, not a person.
    automatic = models.BooleanField(default=False, db_default=False)
    #: As shown: the person who canceled it, or whose newer rollout took its place. Empty if a rule did, or if it was not canceled.
    canceled_by = models.CharField(max_length=160, default="", db_default="")
    scheduled_at = models.DateTimeField()
    #: Position of the event by which it was scheduled.
    scheduled_position = models.BigIntegerField(default=0, db_default=0)
    #: It is not released before then.
    ready_at = models.DateTimeField(null=True)
    #: When the node was asked to cancel it.
    cancel_requested_at = models.DateTimeField(null=True)
    released_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    #: Set if and only if its phase is final.
    finished_at = models.DateTimeField(null=True)
    #: When it times out; set if and only if it is in progress.
    deadline_at = models.DateTimeField(null=True)
    seconds = models.FloatField(null=True)
    #: How long the node's server answered no client while one version replaced another.
    swap_seconds = models.FloatField(null=True)
    #: A `messages.ServerHealth`. None if the operation loaded nothing, and in rows of an older version.
    health = models.JSONField(null=True)
    #: A `messages.Restart`. None if the operation has not restarted the server.
    restart = models.JSONField(null=True)
    #: A `messages.WayBack`. None if no version with data types has taken the place of another one.
    way_back = models.JSONField(null=True)

    objects = CurrentOperations()
    attempts = models.Manager["Operation"]()

    class Meta:
        ordering: ClassVar = ["rollout", "ordinal"]
        indexes: ClassVar = [
            models.Index(fields=["rollout", "phase", "ordinal"], name="operations_of_rollout"),
            models.Index(fields=["rollout", "node"], name="operation_of_node"),
            models.Index(fields=["node", "module_name"], name="operations_of_placement"),
            # By nulls, not by phases: SQLite uses a partial index only for a condition in the same words, and no plain
            # index of the phase once its statistics say that nearly all rows have the same one.
            models.Index(
                fields=["deadline_at"], name="operations_in_hand", condition=models.Q(deadline_at__isnull=False)
            ),
            models.Index(fields=["node"], name="operations_unfinished", condition=models.Q(finished_at__isnull=True)),
            models.Index(
                fields=["may_run_until"],
                name="operations_unanswered",
                condition=models.Q(may_run_until__isnull=False),
            ),
            models.Index(fields=["node"], name="operations_behind", condition=models.Q(behind=True)),
        ]

    def __str__(self) -> str:
        if self.fails_back_to:
            return f"fail back from {self.node} to {self.fails_back_to}"
        return f"{'undo: ' if self.rollback else ''}{self.action} {self.module_name} {self.version} on {self.node}"

    @property
    def newest_attempt(self) -> int:
        """Return the number of the newest attempt, 0 if the node was never asked. A retry counts from its release on."""
        if not self.touched:
            return 0
        return self.attempt if self.released_at else self.attempt - 1


class TimelineEntry(models.Model):
    """An event in the timeline of a rollout."""

    position = models.BigIntegerField(primary_key=True)
    rollout = models.CharField(max_length=32)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["rollout", "position"], name="timeline_of_rollout")]

    def __str__(self) -> str:
        return f"{self.rollout} {self.position}"
