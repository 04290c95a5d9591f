"""Keys of nodes on a whole cluster: they are replaced while it works."""

import json
import time
from functools import partial

from celery import Celery

from tests.fleet import PAUSE
from tests.waiting import wait_for


def identity(fleet, name):
    return json.loads((fleet.folder / "nodes" / name / "identity.json").read_text())


def identity_events(fleet, name):
    events = fleet.get("/v2/events", params={"stream": f"node:{name}", "limit": 1000})["results"]
    return [each["type"] for each in events if "key" in each["type"]]


def has_events(fleet, name, kinds):
    return kinds <= set(identity_events(fleet, name))


def test_the_nodes_of_a_new_cluster_sign_their_messages(fleet):
    for name in fleet.names:
        node = fleet.node(name)
        assert node["identity"] == "signed"
        # Other tests change the shared nodes often, which is a warning too.
        assert "unsigned" not in {each["code"] for each in node["warnings"]}


def test_all_keys_are_replaced_during_a_rollout_and_the_broker_may_be_lost_afterwards(fleet, uploaded):
    before = {name: identity(fleet, name)["credentials"] for name in fleet.names}
    uid = fleet.start(uploaded(), strategy={"max_parallel": 1, "canary": 0})
    for name in fleet.names:
        assert fleet.post(f"/v2/nodes/{name}/rekey", status=200)["identity"] == "signed"
    assert fleet.end_of(uid)["phase"] == "succeeded"
    kinds = {"node.rekey_requested.v1", "node.key_added.v1", "node.key_retired.v1"}
    for name in fleet.names:
        wait_for(partial(has_events, fleet, name, kinds), pause=PAUSE)
        found = identity(fleet, name)
        assert found["upcoming"] is None
        assert found["credentials"]["private_key"] != before[name]["private_key"]
        assert found["credentials"]["broker_password"] != before[name]["broker_password"]
    fleet.up.kill("broker")  # the agents open new connections, with their new passwords
    assert fleet.end_of(fleet.start(uploaded()))["progress"]["succeeded"] == 3
    # The doctor may have looked while the broker was away.
    wait_for(lambda: [fleet.node(name)["phase"] for name in fleet.names] == ["online"] * 3, pause=PAUSE)


def test_a_heartbeat_that_nobody_signed_changes_nothing(fleet):
    last = fleet.get("/v2/events", params={"limit": 1})["results"]
    fake = {"node": "node-1", "hello": True, "interval_seconds": 10, "sent_at": time.time()}
    body = {**fake, "profile": {"platform": "evil/x86"}, "inventory": {"sequence": 1}}
    with Celery(broker=fleet.broker_url(), set_as_current=False) as app, app.producer_or_acquire() as producer:
        for node in ("node-1", *(f"invented-{number}" for number in range(100))):
            producer.publish({**body, "node": node}, exchange="", routing_key="control.beats", serializer="json")
    wait_for(lambda: fleet.broker("LLEN", "control.beats") == 0)
    assert fleet.node("node-1")["platform"] == "linux/x86_64"
    assert {each["name"] for each in fleet.get("/v2/nodes")["results"]} == set(fleet.names)
    assert fleet.get("/v2/events", params={"limit": 1})["results"] == last
