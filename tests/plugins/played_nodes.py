"""Nodes whose part a test plays: it says what an agent would say, without broker and server."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from django.db import connections
from django.test import override_settings
from rest_framework.test import APIClient

from accounts.credentials import remembered
from accounts.roles import Role
from accounts.services import create_user
from rollout.delivery import ingestion
from rollout.messages import (
    Action,
    Activation,
    Heartbeat,
    InstalledModule,
    Inventory,
    NodeProfile,
    Phase,
    Reason,
    Report,
    to_json,
)
from rollout.models import Operation
from rollout.process.advance import advance_all
from rollout.queries.node_documents import node_documents
from rollout.queries.nodes import node_row
from rollout.queries.operations import IN_PROGRESS
from rollout.queries.rollouts import unfinished_rollouts
from tests.plugins.cast import PASSWORD, client_of
from tests.recorded_fleet import ALONE, know
from tests.waiting import PATIENCE

_sequence = count(1)
PLATFORM = "linux/x86_64"


@pytest.fixture
def committed_admin(committed_db: str) -> Iterator[APIClient]:
    """A client of alice, an admin, where commits are real."""
    remembered.clear()
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield client_of(create_user(name="alice", email="a@example.com", password=PASSWORD, role=Role.ADMIN, by=None))
    remembered.clear()


def join(name: str, *modules: InstalledModule, platform: str = PLATFORM, api_hosts: tuple[str, ...] = ()) -> None:
    """The node says hello, and what it has."""
    profile = NodeProfile(platform=platform, server="valkey", server_version="9.1.0", api_hosts=api_hosts)
    know(name, platform=platform, server="valkey", server_version="9.1.0", api_hosts=api_hosts)
    heartbeat = Heartbeat(
        node=name,
        hello=True,
        interval_seconds=30,
        profile=profile,
        inventory=Inventory(sequence=next(_sequence), modules=modules),
        facts=ALONE,
        doctor=(),
    )
    ingestion.record_heartbeats([to_json(heartbeat)])


def installed(module_name: str, version: int, *, loaded: bool = False, content: str = "0" * 64) -> InstalledModule:
    return InstalledModule(module_name=module_name, version=version, content_sha256=content, loaded=loaded)


def answer(
    operation: Operation, phase: Phase = Phase.SUCCEEDED, reason: Reason | None = None, message: str = ""
) -> None:
    """The node reports how the operation ended. What failed has changed nothing."""
    row = node_row(operation.node)
    (document,) = node_documents([row])
    key = (operation.module_name, operation.version)
    modules = [
        installed(
            each["module_name"], each["version"], loaded=each["loaded"], content=each["content_sha256"] or "0" * 64
        )
        for each in document["modules"]
        if each["observed"] != "absent" and (each["module_name"], each["version"]) != key
    ]
    if (operation.action == Action.INSTALL) == (phase in {Phase.SUCCEEDED, Phase.SKIPPED}):
        content = operation.content_sha256 or "0" * 64
        modules.append(installed(*key, loaded=operation.activation == Activation.LOAD, content=content))
    report = Report(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        generation=operation.generation,
        attempt=operation.attempt,
        phase=phase,
        reason=reason,
        message=message,
        seconds=0.1,
        inventory=Inventory(sequence=next(_sequence), modules=tuple(modules)),
    )
    ingestion.record_reports([to_json(report)])


def play(reply: Callable[[Operation], None] = answer) -> int:
    """Move all rollouts on and let every node reply to what it was asked. Returns how many replied."""
    advance_all(unfinished_rollouts())
    asked = list(Operation.objects.filter(phase__in=IN_PROGRESS))
    for operation in asked:
        reply(operation)
    return len(asked)


@contextmanager
def playing(reply: Callable[[Operation], None] = answer) -> Iterator[None]:
    """The nodes reply from a thread of their own, for as long as this lasts. Needs `committed_db`."""
    stopping = threading.Event()

    def run() -> None:
        try:
            while not stopping.wait(0.01):
                play(reply)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="played-nodes")
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(timeout=PATIENCE)
