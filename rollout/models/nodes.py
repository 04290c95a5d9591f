"""Nodes, and what each has of each module."""

from typing import ClassVar

from django.db import models

from modules_app.operating_systems import fitting_platforms


class Node(models.Model):
    name = models.CharField(primary_key=True, max_length=128)
    phase = models.CharField(max_length=20)
    online = models.BooleanField()
    draining = models.BooleanField()
    #: Why its server cannot be used: a code, empty if it can, and sentences.
    degraded_reason = models.CharField(max_length=32, default="", db_default="")
    degraded_message = models.TextField(default="", db_default="")
    platform = models.CharField(max_length=64)
    #: Such as `rhel9`; empty if the node does not say.
    operating_system = models.CharField(max_length=32, default="", db_default="")
    server = models.CharField(max_length=32)
    server_version = models.CharField(max_length=32)
    #: The version of Redis with which the server says that it is compatible, empty from an older agent.
    redis_version = models.CharField(max_length=32, default="", db_default="")
    role = models.CharField(max_length=16)
    #: The address of its server by which other servers know it, if a person has set one: `host:port`.
    address = models.CharField(max_length=264, default="", db_default="")
    #: Host names under which requests mean this node.
    api_hosts = models.JSONField()
    #: Labels that the agent reports, and an operator's labels, which override them.
    agent_labels = models.JSONField()
    labels = models.JSONField()
    #: Names of the modules that the server has loaded and Modfleet did not install.
    other_modules = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    #: A `domain.node.state.Identity`.
    identity = models.CharField(max_length=10, default="unsigned", db_default="unsigned")
    #: Its public keys, each as [public_key, broker_password_sha256], the one in use first.
    keys = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    #: Position of the newest event about its identity.
    identity_position = models.BigIntegerField(default=0, db_default=0, db_index=True)
    rekey_requested = models.BooleanField(default=False, db_default=False)
    #: Two agents with its key are heard.
    duplicate = models.BooleanField(default=False, db_default=False)
    #: Open drifts, each as [module_name, version].
    drifts = models.JSONField(default=list)
    #: Ids of the newest recorded changes of its server's configuration.
    configuration_changes = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    #: When it last came back after it was offline.
    came_back_at = models.DateTimeField(null=True)
    joined_at = models.DateTimeField()
    #: Position of the event by which it first joined: its number in the vendor's API.
    joined_position = models.BigIntegerField()
    #: Of the event by which it got its phase.
    phase_position = models.BigIntegerField(default=0, db_default=0)
    phase_event_id = models.UUIDField(null=True)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def fitting_platforms(self) -> tuple[str, ...]:
        """Return the platforms of the builds that it can use, the closest first."""
        return fitting_platforms(self.platform, self.operating_system)


class NodeModule(models.Model):
    """One module version on one node: its desired state, and what the node's agent observes.

    `desired` and `observed` are `load`, `files` or `absent`. `desired` is copied from `Placement.state`.
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
    #: The rollout whose operation is in progress, or empty.
    rollout = models.CharField(max_length=32)
    #: The newest operation that ended on the module was about this version, and failed.
    failed = models.BooleanField()
    #: A person unloaded it, and nothing was done about it since.
    unloaded_by_hand = models.BooleanField(default=False, db_default=False)
    #: Since when it differs from what the last operation left.
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


class Placement(models.Model):
    """A module on a node, in any version."""

    #: `<node>:<module_name>`
    key = models.CharField(primary_key=True, max_length=257)
    node = models.CharField(max_length=128)
    module_name = models.CharField(max_length=128)
    #: Position of the newest release, None if nothing was ever released there.
    released_position = models.BigIntegerField(null=True)
    #: Its `PlacementState`, as JSON.
    state = models.TextField()
    #: The newest operation that was released ended without success.
    undone = models.BooleanField()

    class Meta:
        db_table = "rollout_placement_state"
        indexes: ClassVar = [
            models.Index(fields=["node", "module_name"], name="placements_of_node"),
            models.Index(fields=["node"], name="placements_undone", condition=models.Q(undone=True)),
        ]

    def __str__(self) -> str:
        return self.key
