"""A fleet in the database alone: nodes that heartbeat, a module with a build, agents' reports. Nothing is published."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from artifacts_app.events import ArtifactUploaded, artifact_stream
from artifacts_app.manifest import Member
from eventstore import Append, append, begun_by, database_now, head, load_states, projections
from rollout.delivery import ingestion
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import NodeJoined, actor_of, node_stream
from rollout.domain.request import RolloutRequest
from rollout.domain.retries import Retries
from rollout.domain.strategy import Strategy
from rollout.messages import (
    Action,
    Heartbeat,
    InstalledModule,
    Inventory,
    NodeProfile,
    Phase,
    Replication,
    Report,
    ServerState,
    to_json,
)
from rollout.models import Node, NodeModule, Operation, Rollout
from rollout.process.advance import advance
from rollout.services.start import start_rollout

PLATFORM = "linux/x86_64"
#: A server that shares its data with no other one, and is ready for a change.
ALONE = ServerState(
    role="master",
    loading=False,
    async_loading=False,
    master_sync_in_progress=False,
    cluster_enabled=False,
    backups=0,
    replica_count=0,
    replication=Replication(role="master"),
)
_sequence = itertools.count(1)


def upload(
    module_name: str = "greet",
    version: int = 1,
    platform: str = PLATFORM,
    content: str = "c1",
    command: str = "",
    arguments: str = "",
) -> None:
    """A build of the module; its bytes are nowhere."""
    commands = [{"command_name": command or f"{module_name}.hello"}]
    build = ArtifactUploaded(
        module_name=module_name,
        version=version,
        platform=platform,
        content_sha256=content,
        package_sha256="p",
        size=10,
        storage_key=f"{module_name}/{version}",
        module_file="greet.so",
        members=(Member(path="greet.so", size=10, sha256=content),),
        dependencies=(),
        document={
            "module_name": module_name,
            "version": version,
            "commands": commands,
            **({"command_line_args": arguments} if arguments else {}),
        },
    )
    append(Append(artifact_stream(module_name, version), 0, [build]))


def heartbeat_of(
    node: str,
    *,
    hello: bool = False,
    modules: Iterable[InstalledModule] = (),
    platform: str = PLATFORM,
    generations: dict[str, int] | None = None,
    facts: ServerState | None = None,
    **profile: Any,
) -> dict[str, Any]:
    """As it comes from the broker. Each is newer than the ones before."""
    return to_json(
        Heartbeat(
            node=node,
            hello=hello,
            interval_seconds=30.0,
            profile=NodeProfile(platform=platform, **profile),
            inventory=Inventory(sequence=next_sequence(), modules=tuple(modules)),
            generations=generations or {},
            facts=facts or ALONE,
            doctor=(),
        )
    )


def next_sequence() -> int:
    return next(_sequence)


def know(*names: str, platform: str = PLATFORM, **profile: Any) -> None:
    """The nodes joined before messages were signed, so their messages need no signature."""
    states = load_states([node_stream(name) for name in names], NODE)
    joined = {name: NodeJoined(node=name, profile=NodeProfile(platform=platform, **profile)) for name in names}
    append(
        *(
            states[node_stream(name)].append([event], begun_by(actor_of(name)))
            for name, event in joined.items()
            if states[node_stream(name)].state.identity is None
        )
    )


def join(*names: str, **more: Any) -> None:
    know(*names, **{key: value for key, value in more.items() if key not in {"modules", "generations"}})
    ingestion.record_heartbeats([heartbeat_of(name, hello=True, **more) for name in names])


def fleet(count: int = 3) -> list[str]:
    """Names of so many nodes that are online, and a module to give them."""
    upload()
    names = [f"n{number:04d}" for number in range(count)]
    join(*names)
    return names


def start(
    *,
    max_parallel: int | str = 10,
    deadline: float = 300.0,
    released: bool = True,
    careful: Mapping[str, Any] | None = None,
    **more: Any,
) -> str:
    """The uid of a rollout of greet 1, its first nodes released: in one wave that goes on whatever fails, or with the
    fields of the strategy that `careful` gives."""
    fields = {"canary": 0, "max_failures": "100%", "retries": Retries(limit=0)} if careful is None else careful
    given: dict[str, Any] = {
        "action": Action.INSTALL,
        "module_name": "greet",
        "version": 1,
        "strategy": Strategy(**{"max_parallel": max_parallel, "node_deadline_seconds": deadline, **fields}),
    }
    uid = start_rollout(RolloutRequest(**{**given, **more}))
    if released:
        advance(uid)
    return uid


def report_of(uid: str, node: str, phase: Phase = Phase.SUCCEEDED, **more: Any) -> dict[str, Any]:
    """What the agent would answer to the operation as it is now."""
    row = operation(uid, node)
    given = {"generation": row.generation, "attempt": row.attempt, "module_name": row.module_name, **more}
    return to_json(Report(rollout=uid, node=node, phase=phase, **given))


def say(uid: str, node: str, phase: Phase = Phase.SUCCEEDED, **more: Any) -> None:
    ingestion.record_reports([report_of(uid, node, phase, **more)])


def inventory(*modules: InstalledModule) -> Inventory:
    return Inventory(sequence=next_sequence(), modules=modules)


def installed(
    version: int = 1, content: str = "c1", *, loaded: bool = True, module_name: str = "greet"
) -> InstalledModule:
    return InstalledModule(module_name=module_name, version=version, content_sha256=content, loaded=loaded)


def operation(uid: str, node: str) -> Operation:
    return Operation.objects.get(rollout=uid, node=node)


def phases(uid: str) -> dict[str, str]:
    return dict(Operation.objects.filter(rollout=uid).values_list("node", "phase"))


def rollout(uid: str) -> Rollout:
    return Rollout.objects.get(uid=uid)


def state_of(node: str, version: int = 1, module_name: str = "greet") -> tuple[str, str, str] | None:
    """Of the module on the node; None when nobody wants it and it is not there."""
    row = NodeModule.objects.filter(node=node, module_name=module_name, version=version).first()
    return (row.desired, row.observed, row.state) if row else None


def node(name: str) -> Node:
    return Node.objects.get(name=name)


def silence(*names: str, seconds: float = 1000) -> None:
    """The nodes were last heard of so long ago."""
    from datetime import timedelta

    from rollout.models import Liveness

    for row in Liveness.objects.filter(node__in=names):
        row.last_seen -= timedelta(seconds=seconds)
        row.save()


def hear(*names: str) -> None:
    """The nodes have sent a heartbeat with their server's facts now, the same as before."""
    from rollout.models import Liveness

    now = database_now()
    Liveness.objects.filter(node__in=names).update(last_seen=now, facts_at=now)


def overdue(*names: str) -> None:
    """The deadlines of the nodes' operations have passed."""
    from datetime import timedelta

    for row in Operation.objects.filter(node__in=names, deadline_at__isnull=False):
        assert row.deadline_at
        row.deadline_at -= timedelta(days=2)
        row.save()


def differences() -> dict[str, list[str]]:
    """Between each projection's rows and what a rebuild gives, as words; nothing of the clock's is turned here."""
    return {each.name: found for each in projections.registered() if (found := projections.check(each))}


def grew(function: Callable[[], object]) -> int:
    """How many events the function appended."""
    before = head()
    function()
    return head() - before
