"""A node with a valid key signs hostile content. Each message is recorded or dropped alone, and harms no other node."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.db import transaction
from msgspec import to_builtins

from eventstore import transact
from rollout.delivery import ingestion
from rollout.domain.node.commands import EnrollNode
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import node_stream
from rollout.models import Node, Operation
from rollout.queries.trust import control_secrets
from rollout.signing import NodeSecret, Purpose, _mac, _shared
from rollout.transport import DROPPED
from tests.recorded_fleet import PLATFORM, report_of, start, upload

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

#: Texts of JSON that take the place of each value of a message.
NASTY = [
    *("null", "true", "-1", "0", "1.5", "1e400", "1e308", "5e-324", "NaN", "Infinity", "2147483647", "2147483648"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1" * 400, "1" * 5000),
    *(
        '""',
        '"x"',
        '"\\u0000"',
        '"\\ud800"',
        '"\\u202e\\u001b[31m"',
        '"a\\r\\nb"',
        '".."',
        '"1"',
        '"failed"',
        '"manual"',
    ),
    *(json.dumps("A" * 1001), json.dumps("\U0001f600" * 255), json.dumps("x" * 300_000)),
    *("[]", "{}", "[null]", "[1, 2]", '{"a": 1}', '{"": ""}', '{"\\u0000": "x"}', '{"\\ud800": "x"}'),
    *("[" * 200 + "]" * 200, "[" * 100_000 + "]" * 100_000, '{"a":' * 1000 + "1" + "}" * 1000),
]


def heartbeat(name: str, counter: int) -> dict[str, Any]:
    """A heartbeat with a value for each field. Each counter is another start of the agent."""
    module = {"module_name": "greet", "version": 1, "content_sha256": "c1", "loaded": True}
    # The first one is of a server that is ready, and alone: it gets the rollout.
    replica = {"address": "a:1", "state": "online", "lag_bytes": 1}
    migration = {"slots": "1-2", "source": "a", "target": "b", "atomic": True}
    replication = {"role": "master", "master": "", "replicas": ["a:1"] if counter > 1 else []}
    server_module = {"name": "greet", "version": 1, "path": "/x", "args": "", "ours": True}
    texts = (
        "master",
        "link_status",
        "node_id",
        "master_node_id",
        "aof_last_write_status",
        "rdb_last_bgsave_status",
        "save_points",
    )
    numbers = ("uptime_seconds", "replica_count", "migrating_slots", "unexpected_error_replies", "used_memory")
    truths = ("loading", "async_loading", "aof_enabled", "cluster_enabled", "include_seen", "master_sync_in_progress")
    return {
        "node": name,
        "hello": counter == 1,
        "interval_seconds": 30.0,
        "profile": {
            "platform": PLATFORM,
            **dict.fromkeys(("operating_system", "server", "server_version", "role"), "x"),
            "api_hosts": ["h"],
            "labels": {"zone": "a"},
            "other_modules": ["bf"],
        },
        "inventory": {"sequence": counter, "modules": [module], "incarnation": f"i{counter}", "counter": 1},
        "generations": {"greet": 1},
        "sent_at": time.time(),
        "protocol": 1,
        "capabilities": ["files", "load", "remove", "undo", "check_role"],
        "agent_version": "1",
        "facts": {
            **dict.fromkeys(("problem", "message", "run_id", "cluster_state", "enable_module_command"), ""),
            **dict.fromkeys(texts, "x" if counter > 1 else ""),
            **dict.fromkeys((*numbers, "max_memory", "module_count"), 1),
            **dict.fromkeys(truths, counter > 1),
            "role": "master",
            "backups": 0 if counter == 1 else 1,
            "sentinels": 1,
            "addresses": ["a:1"] if counter > 1 else [],
            "replica_node_ids": ["x"] if counter > 1 else [],
            "migrations": [migration] if counter > 1 else [],
            "replicas": [replica] if counter > 1 else [],
            "replication": replication,
            "modules": [server_module],
        },
        "doctor": [{"check": "server_socket", "status": "pass", "message": "m", "fix": "f"}],
        "host": f"host of {name}",
    }


def reports(name: str, uid: str, phase: str) -> dict[str, Any]:
    inventory = heartbeat(name, 2)["inventory"]
    more = {"phase": phase, "reason": None, "message": "m", "seconds": 1.0, "swap_seconds": 0.1, "server_log": ["line"]}
    return {"reports": [report_of(uid, name) | more | {"inventory": inventory}]}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


def mutated(value: Any, path: tuple[Any, ...], text: str) -> str:
    """Return `value` as JSON, with `text` in place of the value at `path`."""
    whole = [json.loads(json.dumps(value))]
    place: Any = whole
    *above, last = (0, *path)
    for key in above:
        place = place[key]
    place[last] = "HERE"
    return json.dumps(whole[0]).replace('"HERE"', text)


def signed(secret: NodeSecret, name: str, purpose: Purpose, payload: str) -> dict[str, Any]:
    to = control_secrets()[0].public
    envelope = replace(secret.sign(purpose, name, None, to=to), payload=payload)
    body: dict[str, Any] = to_builtins(
        replace(envelope, signature=_mac(envelope, _shared(secret.private, to.agreement)))
    )
    return body


@pytest.fixture
def secrets() -> dict[str, NodeSecret]:
    """Two nodes that are online, by name: `bad` and `good`."""
    found = {name: NodeSecret.generate() for name in ("bad", "good")}
    for name, secret in found.items():
        enroll = EnrollNode(
            node=name,
            token="t",
            public_key=secret.public,
            broker_password_sha256="0" * 64,
            labels={},
            accepted=True,
            is_silent=True,
        )
        transact(node_stream(name), NODE, enroll)
        hello = heartbeat(name, 1) | {
            "generations": {},
            "inventory": {"sequence": 1, "incarnation": "i1", "counter": 1},
        }
        ingestion.record_heartbeats([signed(secret, name, Purpose.HEARTBEAT, json.dumps(hello))])
    return found


#: The messages are sent in several tests, which can run at the same time.
PARTS = 8


def attack(
    record: Callable[[list[Any]], object], body: Any, part: int, sign: Callable[[str], Any]
) -> list[tuple[Any, str]]:
    """Send each mutation of a part of `body` alone. Return those that passed all checks and could not be recorded."""
    unrecorded = []
    for path in list(places(body))[part::PARTS]:
        for text in NASTY:
            with transaction.atomic():
                DROPPED.take()
                record([sign(mutated(body, path, text))])
                if any(reason == "unrecorded" for _, reason in DROPPED.take()):
                    unrecorded.append((path, text[:60]))
                transaction.set_rollback(True)
    return unrecorded


@pytest.mark.parametrize("part", range(PARTS))
def test_heartbeats(secrets, part):
    upload()
    uid = start()
    body = heartbeat("bad", 2)
    sign = lambda text: signed(secrets["bad"], "bad", Purpose.HEARTBEAT, text)  # noqa: E731
    assert attack(ingestion.record_heartbeats, body, part, sign) == []
    assert {(each.node, each.phase, each.message) for each in Operation.objects.filter(rollout=uid)} == {
        (each, "queued", "") for each in ("bad", "good")
    }


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("phase", ["fetching", "succeeded", "failed"])
def test_reports(secrets, phase, part):
    upload()
    uid = start()
    sign = lambda text: signed(secrets["bad"], "bad", Purpose.REPORTS, text)  # noqa: E731
    assert attack(ingestion.record_reports, reports("bad", uid, phase), part, sign) == []


def test_a_batch_with_bad_messages_records_the_good_one(secrets):
    body = heartbeat("bad", 2)
    payloads = [mutated(body, path, text) for path in places(body) for text in NASTY[:12]]
    bad = [signed(secrets["bad"], "bad", Purpose.HEARTBEAT, each) for each in payloads]
    news = heartbeat("good", 2)
    news["profile"]["server_version"] = "9.9.9"
    ingestion.record_heartbeats([*bad, signed(secrets["good"], "good", Purpose.HEARTBEAT, json.dumps(news)), *bad])
    assert Node.objects.get(name="good").server_version == "9.9.9"
