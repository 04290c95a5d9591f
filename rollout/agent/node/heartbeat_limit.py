"""Keeps heartbeats small: a node with many modules and long texts sends fewer facts, never a larger message."""

import json
from dataclasses import replace

from rollout.messages import FindingStatus, Heartbeat, to_json

#: Limit of a heartbeat as JSON, bytes. In its envelope, it is below 64 kB. The inventory is never cut.
LARGEST = 48_000


def within_limit(heartbeat: Heartbeat) -> Heartbeat:
    """Return the heartbeat with as many facts as the limit allows. The problem of the server and failed checks stay."""
    for reduce in (_without_paths, _without_passed, _without_lists, _without_place):
        if len(json.dumps(to_json(heartbeat))) <= LARGEST:
            break
        heartbeat = reduce(heartbeat)
    return heartbeat


def _without_paths(heartbeat: Heartbeat) -> Heartbeat:
    if heartbeat.facts is None:
        return heartbeat
    modules = tuple(
        # Without its digest, a foreign module is not adopted.
        replace(each, path="", args="", clients=(), sha256="", line="", obstacle="", adopted_from="")
        for each in heartbeat.facts.modules
    )
    return replace(heartbeat, facts=replace(heartbeat.facts, modules=modules))


def _without_passed(heartbeat: Heartbeat) -> Heartbeat:
    doctor = heartbeat.doctor and tuple(each for each in heartbeat.doctor if each.status != FindingStatus.PASS)
    return replace(heartbeat, doctor=doctor)


def _without_lists(heartbeat: Heartbeat) -> Heartbeat:
    doctor = heartbeat.doctor and tuple(
        replace(each, message=each.message[:100], fix="")
        for each in heartbeat.doctor
        if each.status == FindingStatus.FAIL
    )
    facts = heartbeat.facts and replace(heartbeat.facts, modules=(), replicas=())
    return replace(heartbeat, doctor=doctor, facts=facts)


def _without_place(heartbeat: Heartbeat) -> Heartbeat:
    """Leave out the server's place in its shard: it is not known then, and the server is not changed."""
    facts = heartbeat.facts and replace(
        heartbeat.facts, addresses=(), replica_node_ids=(), migrations=None, replication=None
    )
    return replace(heartbeat, facts=facts)
