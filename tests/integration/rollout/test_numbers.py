"""Every number about a rollout is one number, wherever it is shown and at every moment."""

import csv
import io
import json
from collections import Counter
from datetime import datetime
from random import Random

import pytest

from api.fields import rfc3339
from rollout.messages import Activation, Phase, Reason
from rollout.models import Operation, Rollout
from rollout.process import offline_nodes
from rollout.process.advance import advance
from rollout.projections.attempts import BAD
from rollout.projections.counters import COUNTERS, counter_of
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import abort_rollout, retry_rollout
from tests.random_run import RandomRun
from tests.recorded_fleet import differences, fleet, operation, phases, rollout, say, silence, start, upload

pytestmark = [pytest.mark.django_db, pytest.mark.dialect, pytest.mark.slow]

A, B = "n0000", "n0001"


def report(client, uid):
    return json.loads(b"".join(client.get(f"/v2/rollouts/{uid}/report").streaming_content))


def table(client, uid):
    content = b"".join(client.get(f"/v2/rollouts/{uid}/report?format=csv").streaming_content).decode()
    return list(csv.DictReader(io.StringIO(content)))


def counted(rows):
    """What the counters are to be, from the newest attempts of some nodes."""
    found = Counter(counter_of(each.phase) for each in rows)
    failed_before = sum(each.failed_before and each.phase not in BAD for each in rows)
    return {**{name: found[name] for name in COUNTERS}, "failed_before": failed_before}


def shown(counters):
    return {name: counters[name] for name in (*COUNTERS, "failed_before")}


def rows_and_counters_agree():
    """In every rollout, as the rows have it."""
    attempts = list(Operation.attempts.all())
    for row in Rollout.objects.all():
        document = json.loads(row.document)
        own = [each for each in attempts if each.rollout == row.uid]
        newest = [each for each in own if not each.former]
        progress, waves = document["progress"], document["waves"]
        assert shown(progress) == counted(newest)
        assert progress["total"] == sum(progress[name] for name in COUNTERS) == len(newest)
        ever_failed = {each.node for each in own if each.phase in BAD}
        assert progress["failed"] + progress["timed_out"] + progress["failed_before"] == len(ever_failed)
        in_no_wave = [each for each in newest if each.wave < 0]
        assert sum(each["total"] for each in waves) + len(in_no_wave) == progress["total"]
        for wave in waves:
            nodes = [each for each in newest if each.wave == wave["wave"]]
            assert shown(wave) == counted(nodes)
            assert wave["total"] == sum(wave[name] for name in COUNTERS)
            ends = [each.finished_at for each in nodes if each.finished_at]
            if len(ends) < len(nodes) or not wave["started_at"]:
                assert wave["finished_at"] is None
            else:
                assert wave["finished_at"] == max([*map(rfc3339, ends), wave["started_at"]], key=datetime.fromisoformat)


def made(name, uid):
    """The attempts of the newest operation, forward or undo, that were released to the node."""
    newest = operation(uid, name)
    return Operation.attempts.filter(
        rollout=uid, node=name, generation=newest.generation, released_at__isnull=False
    ).values("attempt")


def views_agree(client):
    """With each other, in every rollout."""
    for row in Rollout.objects.all():
        path = f"/v2/rollouts/{row.uid}"
        document, told, lines = client.get(path).json(), report(client, row.uid), table(client, row.uid)
        assert shown(told["counts"]) == shown(document["progress"])
        assert told["waves"] == document["waves"]
        listed = {each["node"]: each for each in client.get(f"{path}/nodes?limit=100").json()["results"]}
        assert Counter(counter_of(each["phase"]) for each in told["nodes"]) == Counter(
            {name: document["progress"][name] for name in COUNTERS if document["progress"][name]}
        )
        of_csv = {each["node"]: each for each in lines if each["record"] == "node"}
        history = {}
        for each in told["nodes"]:
            name = each["node"]
            operations = client.get(f"/v2/nodes/{name}/operations?limit=1000").json()["results"]
            history[name] = next(one for one in operations if one["rollout"] == row.uid)
            assert each["outcomes"] == listed[name]["outcomes"]
            attempts = {each["attempts"], listed[name]["attempt"], history[name]["attempt"]}
            assert attempts == {int(of_csv[name]["attempts"])}
            assert listed[name]["released_at"] is None or each["attempts"] > 0
            assert each["attempts"] == max((one["attempt"] for one in made(name, row.uid)), default=0)
            assert (each["from_version"] or "") == (int(of_csv[name]["from_version"] or 0) or "")
        waves = [each for each in lines if each["record"] == "wave"]
        for wave, line in zip(document["waves"], waves, strict=True):
            numbers = [each.split(" ", 1) for each in line["message"].split(", ")]
            assert {name: int(count) for count, name in numbers} == {
                name: wave[name] for name in ("total", *COUNTERS, "failed_before") if wave[name] or name == "total"
            }


# Runs in which something is rolled back, which the test checks.
@pytest.mark.parametrize("seed", [0, 2, 4])
def test_numbers_agree_at_every_moment(admin, seed):
    upload()
    upload(version=2, content="c2")
    run = RandomRun(Random(seed))
    for number in range(300):
        run.step()
        rows_and_counters_agree()
        if number % 60 == 59:
            views_agree(admin)
    assert Rollout.objects.exclude(rollback_of="").exists() or Operation.attempts.filter(rollback=True).exists()
    assert differences() == {}


def done(version, *names, **more):
    uid = start(version=version, nodes=names or None, **more)
    for name in phases(uid):
        say(uid, name)
    advance(uid)
    return uid


def test_a_report_says_what_was_loaded(admin):
    for version in (2, 3):
        upload(version=version, content=f"c{version}")
    fleet(1)
    done(1)
    done(2, activation=Activation.FILES)
    (node,) = report(admin, done(3))["nodes"]
    assert (node["from_version"], node["from_activation"], node["from_sha256"]) == (1, "load", "c1")


def test_or_else_whose_files_were_there(admin):
    upload(version=2, content="c2")
    fleet(1)
    done(1, activation=Activation.FILES)
    (node,) = report(admin, done(2))["nodes"]
    assert (node["from_version"], node["from_activation"], node["from_sha256"]) == (1, "files", "c1")


def test_an_attempt_has_all_that_is_known(admin):
    upload(version=2, content="c2")
    fleet(2)
    done(1)
    uid = start(version=2, careful={"canary": 1, "max_failures": 0})
    say(uid, A, Phase.FAILED, reason=Reason.LOAD_FAILED, message="no", seconds=2.0, swap_seconds=0.5)
    advance(uid)
    retry_rollout(uid)
    (attempt,) = [each for each in table(admin, uid) if each["record"] == "attempt"]
    expected = {
        "module_name": "greet",
        "wave": "0",
        "node": A,
        "phase": "failed",
        "attempts": "1",
        "from_version": "1",
        "from_activation": "load",
        "from_sha256": "c1",
        "to_version": "2",
        "to_sha256": "c2",
        "seconds": "2.0",
        "swap_seconds": "0.5",
    }
    assert {name: attempt[name] for name in expected} == expected
    assert attempt["at"] < attempt["finished_at"]


def attempt_shown(client, uid, node):
    """The number of the newest attempt, which all views agree on."""
    views_agree(client)
    return client.get(f"/v2/rollouts/{uid}/nodes/{node}").json()["attempt"]


def test_a_retry_that_was_never_released_is_no_attempt(admin):
    fleet(2)
    uid = start(careful={"canary": 1, "max_failures": 0})
    say(uid, A, Phase.FAILED, reason=Reason.LOAD_FAILED)
    advance(uid)
    assert (rollout(uid).phase, attempt_shown(admin, uid, A)) == ("paused", 1)
    retry_rollout(uid)
    assert (operation(uid, A).attempt, operation(uid, A).phase) == (2, "scheduled")
    assert (attempt_shown(admin, uid, A), attempt_shown(admin, uid, B)) == (1, 0)
    abort_rollout(uid)
    advance(uid)
    assert attempt_shown(admin, uid, A) == 1
    first, second = report(admin, uid)["nodes"][0]["outcomes"]
    assert first["text"].startswith("attempt 1 failed")
    assert second["text"].startswith("retry, never released, retried by ")
    assert differences() == {}


def test_what_a_node_was_asked_before_it_went_offline_is_an_attempt(admin):
    fleet(1)
    uid = start()
    released_at = operation(uid, A).released_at
    silence(A)
    offline_nodes.declare_silent_nodes_offline()
    assert (operation(uid, A).phase, operation(uid, A).released_at) == ("scheduled", released_at)
    assert attempt_shown(admin, uid, A) == 1
    abort_rollout(uid)
    advance(uid)
    assert report(admin, uid)["nodes"][0]["outcomes"][0]["text"].startswith("attempt 1 canceled")
    assert differences() == {}


def finished_at(uid):
    ended = operation(uid, A).finished_at
    assert ended
    return rfc3339(ended)


def test_a_wave_has_finished_when_its_nodes_have_ended(admin):
    fleet(2)
    uid = start(careful={"canary": 1, "gate": "manual"})
    say(uid, A)
    advance(uid)
    ended = finished_at(uid)
    assert rollout(uid).waves[0]["finished_at"] == ended
    roll_back_rollout(uid)
    assert rollout(uid).waves[0]["finished_at"] is None
    say(uid, A)
    advance(uid)
    assert rollout(uid).waves[0]["finished_at"] == finished_at(uid) > ended


def test_a_retry_and_its_original_name_each_other(admin):
    fleet(2)
    uid = start()
    say(uid, A, Phase.FAILED)
    say(uid, B)
    etag = admin.get(f"/v2/rollouts/{uid}").headers["ETag"]
    retry = admin.post(f"/v2/rollouts/{uid}/retry").json()["uid"]
    advance(retry)
    say(retry, A)
    back = admin.post(f"/v2/rollouts/{uid}/rollback").json()
    original = admin.get(f"/v2/rollouts/{uid}", headers={"If-None-Match": etag}).json()
    assert (original["retried_by"], original["rolled_back_by"]) == ([retry], back["uid"])
    assert (back["title"], back["rollback_of"]) == ("roll back greet 1", uid)
    assert [each["by"] for each in [back["left_alone"]]] == [[{"rollout": retry, "count": 1, "nodes": [A]}]]
    (head,) = [each for each in table(admin, back["uid"]) if each["record"] == "rollout"]
    assert (head["action"], head["rollback_of"]) == ("rollback", uid)
    (head,) = [each for each in table(admin, uid) if each["record"] == "rollout"]
    assert (head["retried_by"], head["rolled_back_by"]) == (retry, back["uid"])
    for here, other in ((uid, retry), (uid, back["uid"]), (retry, uid), (back["uid"], uid)):
        assert other in admin.get(f"/v2/rollouts/{here}/why").json()["summary"]
    summary = admin.get(f"/v2/rollouts/{uid}/why").json()["summary"]
    assert f"Rollout {retry} retries its failed nodes." in summary
    assert f"Rollout {back['uid']} rolls it back." in summary
    then = admin.get(f"/v2/rollouts/{uid}?as_of={etag.strip(chr(34))}").json()
    assert (then["retried_by"], then["rolled_back_by"]) == ([], None)
    assert differences() == {}
