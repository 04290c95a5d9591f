"""A fleet in the database alone: nodes that heartbeat, a module with a build, agents' reports. Nothing is published."""

from artifacts_app.events import ArtifactUploaded, artifact_stream
from artifacts_app.manifest import Member
from eventstore import Append, append, head, projections
from rollout.delivery import ingestion
from rollout.domain.request import RolloutRequest
from rollout.domain.retries import Retries
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Heartbeat, InstalledModule, Inventory, NodeProfile, Phase, Report, to_json
from rollout.models import Node, NodeModule, Operation, Rollout
from rollout.process.advance import advance
from rollout.services.start import start_rollout

PLATFORM = "linux/x86_64"


def upload(module_name="greet", version=1, platform=PLATFORM, content="c1"):
    """A build of the module; its bytes are nowhere."""
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
        document={"module_name": module_name, "version": version, "commands": [{"command_name": "greet.hello"}]},
    )
    append(Append(artifact_stream(module_name, version), 0, [build]))


def heartbeat_of(node, *, hello=False, modules=(), platform=PLATFORM, generations=None, **profile):
    """As it comes from the broker. Each is newer than the ones before."""
    return to_json(
        Heartbeat(
            node=node,
            hello=hello,
            interval_seconds=30.0,
            profile=NodeProfile(platform=platform, **profile),
            inventory=Inventory(sequence=next_sequence(), modules=tuple(modules)),
            generations=generations or {},
        )
    )


def next_sequence():
    next_sequence.last += 1
    return next_sequence.last


next_sequence.last = 0


def join(*names, **more):
    ingestion.record_heartbeats([heartbeat_of(name, hello=True, **more) for name in names])


def fleet(count=3):
    """Names of so many nodes that are online, and a module to give them."""
    upload()
    names = [f"n{number:04d}" for number in range(count)]
    join(*names)
    return names


def start(*, max_parallel=10, deadline=300.0, released=True, careful=None, **more):
    """The uid of a rollout of greet 1, its first nodes released: in one wave that goes on whatever fails, or with the
    fields of the strategy that `careful` gives."""
    fields = {"canary": 0, "max_failures": "100%", "retries": Retries(limit=0)} if careful is None else careful
    given = {
        "action": Action.INSTALL,
        "module_name": "greet",
        "version": 1,
        "strategy": Strategy(**{"max_parallel": max_parallel, "node_deadline_seconds": deadline, **fields}),
    }
    uid = start_rollout(RolloutRequest(**{**given, **more}))
    if released:
        advance(uid)
    return uid


def report_of(uid, node, phase=Phase.SUCCEEDED, **more):
    """What the agent would answer to the operation as it is now."""
    row = operation(uid, node)
    given = {"generation": row.generation, "attempt": row.attempt, "module_name": row.module_name, **more}
    return to_json(Report(rollout=uid, node=node, phase=phase, **given))


def say(uid, node, phase=Phase.SUCCEEDED, **more):
    ingestion.record_reports([report_of(uid, node, phase, **more)])


def inventory(*modules):
    return Inventory(sequence=next_sequence(), modules=modules)


def installed(version=1, content="c1", *, loaded=True, module_name="greet"):
    return InstalledModule(module_name=module_name, version=version, content_sha256=content, loaded=loaded)


def operation(uid, node):
    return Operation.objects.get(rollout=uid, node=node)


def phases(uid):
    return dict(Operation.objects.filter(rollout=uid).values_list("node", "phase"))


def rollout(uid):
    return Rollout.objects.get(uid=uid)


def state_of(node, version=1, module_name="greet"):
    """Of the module on the node; None when nobody wants it and it is not there."""
    row = NodeModule.objects.filter(node=node, module_name=module_name, version=version).first()
    return row and (row.desired, row.observed, row.state)


def node(name):
    return Node.objects.get(name=name)


def silence(*names, seconds=1000):
    """The nodes were last heard of so long ago."""
    from datetime import timedelta

    from rollout.models import Liveness

    for row in Liveness.objects.filter(node__in=names):
        row.last_seen -= timedelta(seconds=seconds)
        row.save()


def overdue(*names):
    """The deadlines of the nodes' operations have passed."""
    from datetime import timedelta

    for row in Operation.objects.filter(node__in=names, deadline_at__isnull=False):
        row.deadline_at -= timedelta(days=2)
        row.save()


def differences():
    """Between each projection's rows and what a rebuild gives, as words; nothing of the clock's is turned here."""
    return {each.name: found for each in projections.registered() if (found := projections.check(each))}


def grew(function):
    """How many events the function appended."""
    before = head()
    function()
    return head() - before
