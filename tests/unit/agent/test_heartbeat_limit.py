"""A heartbeat is small, whatever the server says."""

import json
from dataclasses import replace

from rollout.agent.node.heartbeat_limit import LARGEST, within_limit
from rollout.agent.server import observation, texts
from rollout.messages import (
    MOST_ADDRESSES,
    MOST_MIGRATIONS,
    MOST_REPLICAS,
    Finding,
    FindingStatus,
    Heartbeat,
    Inventory,
    NodeProfile,
    Replica,
    Replication,
    ServerModule,
    ServerProblem,
    ServerState,
    SlotMigration,
    from_json,
    to_json,
)

LIMIT = 64_000


def heartbeat(letter="\N{GREEK SMALL LETTER ALPHA}", longest_name=264):
    text, name = letter * texts.LONGEST_FACT, letter * longest_name
    modules = tuple(
        ServerModule(name=text[:64], version=number, path=text, args=text[:64])
        for number in range(observation.MOST_MODULES)
    )
    replicas = tuple(Replica(address=text, state=text[:32]) for _ in range(MOST_REPLICAS))
    statuses = [FindingStatus.FAIL] * 5 + [FindingStatus.PASS] * 25
    return Heartbeat(
        node="n1",
        hello=True,
        interval_seconds=10,
        profile=NodeProfile(platform="linux/x86_64"),
        inventory=Inventory(sequence=1),
        facts=ServerState(
            problem=ServerProblem.SERVER_SILENT,
            message=text,
            modules=modules,
            replicas=replicas,
            addresses=(name,) * MOST_ADDRESSES,
            migrations=(SlotMigration(slots="1", source=name, target=name),) * MOST_MIGRATIONS,
            replication=Replication(role="master", replicas=(name,) * MOST_REPLICAS),
        ),
        doctor=tuple(
            Finding(check=f"check{number}", status=status, message=letter * 300, fix=letter * 300)
            for number, status in enumerate(statuses)
        ),
    )


def test_the_largest_one_is_cut():
    whole = heartbeat()
    assert len(json.dumps(to_json(whole))) > LIMIT
    cut = within_limit(whole)
    assert len(json.dumps({"payload": json.dumps(to_json(cut))})) < LIMIT
    assert cut.facts
    assert whole.facts
    assert cut.doctor
    assert (cut.facts.problem, cut.facts.message) == (whole.facts.problem, whole.facts.message)
    assert [each.check for each in cut.doctor if each.status == FindingStatus.FAIL] == [f"check{i}" for i in range(5)]
    assert from_json(Heartbeat, to_json(cut)) == cut


def test_many_foreign_modules_are_cut():
    whole = heartbeat("x")
    assert whole.facts
    modules = tuple(
        replace(each, sha256="a" * 64, line=each.path, obstacle=each.path) for each in whole.facts.modules[:50]
    )
    cut = within_limit(replace(whole, facts=replace(whole.facts, modules=modules)))
    assert len(json.dumps(to_json(cut))) <= LARGEST
    assert cut.facts
    assert {(each.sha256, each.obstacle) for each in cut.facts.modules} == {("", "")}


def test_a_place_in_a_shard_that_is_cut_is_not_known():
    facts = within_limit(heartbeat()).facts
    assert facts
    assert (facts.addresses, facts.migrations, facts.replication) == ((), None, None)


def test_an_ordinary_place_in_a_shard_is_never_cut():
    whole = heartbeat(longest_name=len("2001:db8:85a3:8d3:1319:8a2e:370:7348:65535"))
    cut = within_limit(whole)
    assert cut.facts
    assert whole.facts
    assert len(json.dumps(to_json(whole))) > LIMIT
    place = ("addresses", "replica_node_ids", "migrations", "replication")
    assert [getattr(cut.facts, each) for each in place] == [getattr(whole.facts, each) for each in place]


def test_a_small_one_stays_as_it_is():
    small = replace(heartbeat("a", longest_name=50), doctor=())
    assert len(json.dumps(to_json(small))) < LARGEST
    assert within_limit(small) == small


def test_a_large_one_without_facts_stays_as_it_is():
    old = replace(heartbeat(), facts=None, doctor=None, generations={f"m{number:0100}": 1 for number in range(900)})
    assert within_limit(old) == old
