"""A heartbeat is small, whatever the server says."""

import json
from dataclasses import replace

from rollout.agent.node.heartbeat_limit import LARGEST, within_limit
from rollout.agent.server import observation
from rollout.messages import (
    Finding,
    FindingStatus,
    Heartbeat,
    Inventory,
    NodeProfile,
    Replica,
    ServerModule,
    ServerProblem,
    ServerState,
    from_json,
    to_json,
)

LIMIT = 64_000


def heartbeat(letter="\N{GREEK SMALL LETTER ALPHA}"):
    text = letter * observation.LONGEST_FACT
    modules = tuple(
        ServerModule(name=text[:64], version=number, path=text, args=text[:64])
        for number in range(observation.MOST_MODULES)
    )
    replicas = tuple(Replica(address=text, state=text[:32]) for _ in range(observation.MOST_REPLICAS))
    statuses = [FindingStatus.FAIL] * 5 + [FindingStatus.PASS] * 25
    return Heartbeat(
        node="n1",
        hello=True,
        interval_seconds=10,
        profile=NodeProfile(platform="linux/x86_64"),
        inventory=Inventory(sequence=1),
        facts=ServerState(problem=ServerProblem.SERVER_SILENT, message=text, modules=modules, replicas=replicas),
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


def test_a_small_one_stays_as_it_is():
    small = replace(heartbeat("a"), doctor=())
    assert len(json.dumps(to_json(small))) < LARGEST
    assert within_limit(small) == small


def test_a_large_one_without_facts_stays_as_it_is():
    old = replace(heartbeat(), facts=None, doctor=None, generations={f"m{number:0100}": 1 for number in range(900)})
    assert within_limit(old) == old
