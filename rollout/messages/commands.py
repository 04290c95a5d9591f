"""The message to an agent: carry out one operation."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from artifacts_app.manifest import Member
from rollout.messages.fields import Address, Seconds, Word
from rollout.messages.phases import Action, Activation, FailedCalls, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """Where to fetch a build's package, and all that is needed to check it. `size` is in bytes."""

    url: str
    size: int
    package_sha256: str
    content_sha256: str
    module_file: str
    members: tuple[Member, ...]


#: The most replicas of a server that messages name.
MOST_REPLICAS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """The place of a server in its shard, by its own INFO. Two are equal while nothing has changed.

    `role` is `master` or `replica`, empty if it is not known. `master`, for a replica: `host:port`. `replicas`: the
    `host:port` of each, sorted, without clients that only copy the data; the first `MOST_REPLICAS`.
    """

    role: Word = ""
    master: Address = ""
    replicas: Annotated[tuple[Address, ...], Meta(max_length=MOST_REPLICAS)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One operation for one node. `package` is None exactly when `action` is remove, or with `fails_back_to`.

    `generation` grows with each new intent for (node, module), `attempt` with each retry of one intent.
    `expires` is Unix time in seconds: after it, the agent drops the command without an answer. `sent_at` is when it was
    published, by the same clock; None from an older control plane.
    `deadline_seconds` limits the time of the operation on the node. The same command on `cancel_queue_for(node)` cancels
    the operation: the answer is a final report, `canceled` if the node is as it was before.
    """

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    generation: int
    attempt: int
    expires: float
    deadline_seconds: float
    sent_at: float | None = None
    package: Package | None = None
    #: The module's arguments. None from an older control plane, which sends only `command_line_args`.
    args: tuple[str, ...] | None = None
    #: The same as one text, for older agents: they split it as a shell does it.
    command_line_args: str = ""
    #: The module's arguments in a scratch server. None: the same.
    scratch_args: str | None = None
    #: The keys (`scratch_key`) of loads in scratch servers that have succeeded on any node or for the package, and for each
    #: of them its `ScratchLoad.source`.
    scratch_done: tuple[str, ...] = ()
    scratch_sources: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    #: The version that the undone operation has installed. Its files are deleted once all else has succeeded. If it is
    #: `version` itself, the files stay and the module is unloaded.
    undoes: int | None = None
    #: How long the server must run after the probe before the load counts as a success; part of `deadline_seconds`.
    settle_seconds: float = 0.0
    #: Module names, each after those that it needs. A server loads its modules in this order when it starts.
    load_order: tuple[str, ...] = ()
    #: True if the module declares data types, or a scratch server has seen some: a server with keys of these types does not
    #: start without the module.
    has_types: bool = False
    #: The request that led to the command, for the agent's log.
    correlation_id: str = ""
    #: The start of the agent that must carry it out: another one drops it. Empty in a command without an envelope.
    incarnation: str = ""
    #: Grows with each release of one attempt: an agent that has returned the operation carries it out again only after
    #: another release. 0 from an older control plane.
    release: int = 0
    #: The server's place in its shard when the operation was released. If it differs just before the agent changes the
    #: server, the agent returns the operation. None: not checked.
    expects: Replication | None = None
    #: Take over the module that the server has loaded from another path, if its file is that of the package: without a load.
    adopt: bool = False
    #: Unload the module even if its commands were called in the last 10 minutes.
    even_if_used: bool = False
    #: False: no person has started the operation. If the server has loaded the module by now, it is not unloaded.
    may_unload: bool = True
    #: Nodes whose word is all that `has_types` or `aux_data` is based on, in words; empty if the package says it too. Such a
    #: claim does not count on a node that has found out itself.
    has_types_from: str = ""
    aux_data_from: str = ""
    #: The module writes auxiliary data, so that a server does not load its own RDB file without the module: as scratch
    #: servers have seen on any node, for the build that this node has. None: not known.
    aux_data: bool | None = None
    #: An upgrade that would lose an option of the former build fails before the swap: no plan that a person has accepted has
    #: listed it. `options`: names of the new build's options, as scratch servers have seen on any node. None: not known.
    keep_options: bool = False
    #: If a plan was accepted: the options that it has listed as lost, which may be lost. None: no plan was.
    accepted_losses: tuple[str, ...] | None = None
    options: tuple[str, ...] | None = None
    #: `restart`: the server is restarted with the version, instead of loading it while it runs. Only for agents with the
    #: capability `restart`.
    way: Way = Way.LOAD
    #: Restart the server even if it has neither a file with its data nor a replica.
    may_discard_data: bool = False
    #: A node has shown that the former version may not read what this one has written: no server with this one is restarted
    #: with the former one.
    one_way: bool = False
    #: The longest time for which writes wait while a replica becomes the master.
    pause_seconds: Seconds = 5.0
    #: Give the role of the master to the replica at this address, `host:port`, and change nothing else. Empty: no failback.
    fails_back_to: str = ""
    #: `stop`: the operation fails if, while the server settles, more than twice the share of calls fails.
    failed_calls: FailedCalls = FailedCalls.WARN
