"""The control plane records nothing of a message that is not exactly what its node has signed."""

import itertools
import time
from random import Random

import msgspec
import pytest

from eventstore import head, transact
from rollout.delivery import ingestion
from rollout.delivery.ingestion import heartbeats, reports
from rollout.domain.node.commands import EnrollNode
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import node_stream
from rollout.messages import Heartbeat, InstalledModule, Inventory, NodeProfile, Phase, Report, Reports
from rollout.models import Liveness, Node, Operation
from rollout.queries.trust import control_secrets
from rollout.signing import NodeSecret, Purpose
from rollout.transport import DROPPED
from tests.mutations import mutations
from tests.recorded_fleet import ALONE, operation, start, upload

pytestmark = pytest.mark.django_db

SECRETS = {name: NodeSecret.generate() for name in ("n1", "n2")}
MUTATIONS = 3_000
BATCH = 250
counter = itertools.count(1)


def enrol(name: str) -> None:
    command = EnrollNode(
        node=name,
        token="t",
        public_key=SECRETS[name].public,
        broker_password_sha256="0" * 64,
        labels={},
        accepted=True,
        is_silent=True,
    )
    transact(node_stream(name), NODE, command)


def signed(purpose: Purpose, name: str, message: object):
    return msgspec.to_builtins(SECRETS[name].sign(purpose, name, message, to=control_secrets()[0].public))


def heartbeat(name: str, *, hello: bool = False, modules: tuple[InstalledModule, ...] = ()):
    inventory = Inventory(sequence=1, modules=modules, incarnation=f"{name}-1", counter=next(counter))
    profile = NodeProfile(platform="linux/x86_64", server="valkey")
    message = Heartbeat(
        node=name,
        hello=hello,
        interval_seconds=30,
        profile=profile,
        inventory=inventory,
        sent_at=time.time(),
        facts=ALONE,
        doctor=(),
        generations={"greet": 1},
    )
    return signed(Purpose.HEARTBEAT, name, message)


def report(uid: str, name: str, phase: Phase):
    its = Operation.objects.get(rollout=uid, node=name)
    said = Report(
        rollout=uid,
        node=name,
        module_name=its.module_name,
        generation=its.generation,
        attempt=its.attempt,
        phase=phase,
    )
    return signed(Purpose.REPORTS, name, Reports(reports=(said,)))


@pytest.fixture
def uid() -> str:
    """A rollout of two nodes that have joined, in progress."""
    upload()
    for name in SECRETS:
        enrol(name)
    ingestion.record_heartbeats([heartbeat(name, hello=True) for name in SECRETS])
    DROPPED.take()
    return start()


def everything():
    rows = [list(model.objects.order_by("pk").values()) for model in (Node, Liveness, Operation)]
    return head(), rows


def test_it_works(uid):
    ingestion.record_reports([report(uid, "n1", Phase.SUCCEEDED)])
    assert operation(uid, "n1").phase == Phase.SUCCEEDED


def test_no_mutation_of_a_report_is_recorded(uid):
    valid = [report(uid, name, phase) for name in SECRETS for phase in (Phase.FETCHING, Phase.SUCCEEDED, Phase.FAILED)]
    refused(reports.record_reports, [changed for _, changed in mutations(valid, Random(1), MUTATIONS)])


def test_no_mutation_of_a_heartbeat_is_recorded(uid):
    gone = (InstalledModule(module_name="greet", version=9, content_sha256="f" * 64, loaded=True),)
    valid = [heartbeat(name, hello=hello, modules=gone) for name in SECRETS for hello in (True, False)]
    refused(heartbeats.record_heartbeats, [changed for _, changed in mutations(valid, Random(2), MUTATIONS)])


def test_a_message_for_one_queue_is_refused_on_the_other(uid):
    refused(reports.record_reports, [heartbeat("n1")])
    refused(heartbeats.record_heartbeats, [report(uid, "n1", Phase.SUCCEEDED)])


def refused(record, bodies):
    """Record the messages: nothing changes, and each is counted."""
    before = everything()
    for begin in range(0, len(bodies), BATCH):
        record(bodies[begin : begin + BATCH])
    assert everything() == before
    assert sum(DROPPED.take().values()) == len(bodies)
