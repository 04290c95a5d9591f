"""The outbox: what is published, when, and how often."""

from datetime import timedelta

import pytest
from django.conf import settings
from django.db import Error, connection
from kombu.exceptions import OperationalError

from artifacts_app.services import artifact_deletion
from eventstore import append, database_now
from rollout.delivery import commands, consumer, ingestion, outbox
from rollout.delivery.ingestion import order
from rollout.delivery.leases import LEASE_SECONDS
from rollout.delivery.outbox import forget_finished, publish_due
from rollout.management.commands.relay import run_once
from rollout.messages import Action, Phase, Reason, queue_for
from rollout.models import Dispatch, Liveness, Operation
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance
from rollout.services.nodes import decommission_node, drain_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import abort_rollout, retry_rollout
from tests.recorded_fleet import fleet, heartbeat_of, join, operation, phases, rollout, say, silence, start, upload

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(monkeypatch):
    """Commands instead of messages: (node, rollout, attempt)."""
    found = []
    monkeypatch.setattr(
        outbox, "_send", lambda command, _, **__: found.append((command.node, command.rollout, command.attempt))
    )
    return found


def shift(seconds, *names):
    """The publishes, deadlines of resends and leases of all commands were so long ago."""
    for row in Dispatch.objects.all():
        for name in ("published_at", "due_at", "leased_until"):
            if getattr(row, name) is not None:
                setattr(row, name, getattr(row, name) - timedelta(seconds=seconds))
        row.save()
    Operation.objects.update(released_at=None)
    for released in Operation.objects.all():
        released.released_at = released.scheduled_at - timedelta(days=1)
        released.save()
    for liveness in Liveness.objects.all():
        liveness.last_seen -= timedelta(seconds=seconds + 1)
        liveness.hello_at = liveness.hello_at and liveness.hello_at - timedelta(seconds=seconds + 1)
        liveness.save()


def test_it_works(broker):
    names = fleet(3)
    uid = start(max_parallel=2)
    assert publish_due() == 2
    assert [broker.waiting(queue_for(name)) for name in names] == [1, 1, 0]
    assert publish_due() == 0
    say(uid, names[0])
    assert publish_due() == 1
    assert broker.waiting(queue_for(names[2])) == 1


def test_a_request_never_talks_to_the_broker(dead_broker):
    fleet(1)
    uid = start()
    abort_rollout(uid)
    decommission_node("n0000")
    assert rollout(uid).phase == "aborted"


def test_what_could_not_be_published_is_still_due(dead_broker, monkeypatch):
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: pytest.fail("kombu tries again itself"))
    fleet(2)
    start()
    with pytest.raises(OperationalError):
        publish_due()
    assert not Dispatch.objects.exclude(published_at=None, lease=None, leased_until=None).exists()


def test_a_broker_that_is_away_is_told_in_one_line(dead_broker, caplog):
    fleet(1)
    start()
    assert run_once()[0] is False
    said = [record for record in caplog.records if record.name.endswith("relay")]
    assert [(record.levelname, record.exc_info) for record in said] == [("WARNING", None)]


def test_of_a_batch_only_what_was_sent_is_marked(monkeypatch):
    fleet(3)
    start()
    sent: list[str] = []

    def send_two(command, _, **__):
        if len(sent) == 2:
            raise ConnectionError
        sent.append(command.node)

    monkeypatch.setattr(outbox, "_send", send_two)
    with pytest.raises(ConnectionError):
        publish_due()
    assert Dispatch.objects.filter(published_at=None, lease=None).count() == 1
    sent.clear()
    assert publish_due() == 1


@pytest.fixture
def loses(monkeypatch):
    """The database is lost at the first call of each of these functions of the relay."""

    def lose(*names):
        for name in names:
            monkeypatch.setattr(outbox, name, _lost_once(getattr(outbox, name)))
        with pytest.raises(Error):
            publish_due()
        assert Dispatch.objects.exclude(lease=None).exists()

    return lose


def _lost_once(real):
    calls = []

    def lose(*args):
        calls.append(args)
        if len(calls) == 1:
            raise Error("the connection is lost")
        return real(*args)

    return lose


def test_what_was_sent_when_the_database_was_lost_is_noted_later(sent, loses):
    fleet(2)
    start()
    loses("_record")
    assert publish_due() == 0
    assert len(sent) == 2
    assert set(Dispatch.objects.values_list("lease", "publishes")) == {(None, 1)}


def test_what_was_claimed_when_the_database_was_lost_is_published_later(sent, loses):
    fleet(2)
    start()
    loses("commands_of", "_record")
    assert publish_due() == 2
    assert len(sent) == 2


def test_an_idle_control_worker_records_lost_outcomes(sent, loses):
    fleet(1)
    start()
    loses("_record")
    consumer.declare_silent_nodes(0.0)
    assert set(Dispatch.objects.values_list("lease", "publishes")) == {(None, 1)}


def test_a_relay_that_died_is_followed_by_another_after_its_lease(sent):
    fleet(1)
    start()
    assert outbox._claim() is not None
    assert publish_due() == 0
    shift(LEASE_SECONDS + 1)
    assert publish_due() == 1


def test_what_another_relay_was_first_with_is_not_published_again(sent):
    fleet(1)
    start()
    claim = outbox._claim()
    assert claim
    Dispatch.objects.update(leased_until=None)
    publish_due()
    Dispatch.objects.update(lease=claim.lease)
    assert outbox._publish(claim) == 0
    assert len(sent) == 1


def test_a_command_is_sent_again_ever_less_often_to_a_node_with_heartbeats(sent):
    fleet(1)
    start()
    publish_due()
    waits = []
    for _ in range(8):
        row = Dispatch.objects.get()
        assert row.due_at
        assert row.published_at
        waits.append(round((row.due_at - row.published_at).total_seconds()))
        shift(1000)
        assert publish_due() == 0, "it has not beaten since"
        ingestion.record_heartbeats([heartbeat_of("n0000")])
        assert publish_due() == 1
    assert waits == [settings.ENVIRONMENT.resend_seconds * 2**n for n in range(6)] + [300, 300]


def test_a_hello_is_answered_at_once(sent):
    fleet(1)
    start()
    publish_due()
    ingestion.record_heartbeats([heartbeat_of("n0000")])
    assert publish_due() == 0
    ingestion.record_heartbeats([heartbeat_of("n0000", hello=True)])
    assert publish_due() == 1
    assert Dispatch.objects.get().publishes == 1, "the wait starts anew"
    assert publish_due() == 0


# --- A database whose clock was set back ------------------------------------------------------------------------------


@pytest.fixture
def clock_at(monkeypatch):
    """`clock_at(seconds)`: the database's clock is ahead of the right time by so much. The log's own time never goes back."""

    def turn(seconds):
        def turned():
            return database_now() + timedelta(seconds=seconds)

        for module in (outbox, commands, order, timeouts):
            monkeypatch.setattr(module, "database_now", turned)

    return turn


@pytest.fixture
def sent_often(monkeypatch):
    """Names of the nodes to which commands were sent; fails when there is no end to it."""
    found = []

    def note(command, _, **__):
        found.append(command.node)
        assert len(found) < 50, "published again and again"

    monkeypatch.setattr(outbox, "_send", note)
    monkeypatch.setattr(outbox, "_send_cancel", note)
    return found


@pytest.mark.parametrize("seconds", [-20, -3600, -400 * 86_400])
@pytest.mark.parametrize("cause", ["release", "hello", "cancel"])
def test_what_happened_before_the_clock_was_set_back_is_published_once(sent_often, clock_at, cause, seconds):
    name, _ = fleet(2)
    uid = start()
    publish_due()
    match cause:
        case "release":
            say(uid, name, Phase.FAILED)
            retry_rollout(uid)
            advance(uid)
        case "hello":
            ingestion.record_heartbeats([heartbeat_of(name, hello=True)])
        case "cancel":
            roll_back_rollout(uid)
    clock_at(seconds)
    publish_due()
    publish_due()
    assert sent_often.count(name) == 2


@pytest.mark.parametrize("seconds", [-3600, -400 * 86_400])
def test_a_command_is_sent_again_after_the_clock_was_set_back(sent_often, clock_at, seconds):
    """However far: the node that has lost it would wait until the clock has caught up."""
    (name,) = fleet(1)
    start()
    publish_due()
    clock_at(seconds)
    ingestion.record_heartbeats([heartbeat_of(name)])
    publish_due()
    assert len(sent_often) == 2
    for attempt in range(1, 9):
        publish_due()
        assert len(sent_often) == attempt + 1, "it waits ever longer"
        seconds += outbox.LONGEST_RESEND_SECONDS + 1
        clock_at(seconds)
        ingestion.record_heartbeats([heartbeat_of(name)])
        publish_due()
        assert len(sent_often) == attempt + 2


def test_a_claim_of_a_moment_later_is_another_relay_s(sent_often, clock_at):
    fleet(1)
    start()
    clock_at(1)
    assert outbox._claim() is not None
    clock_at(0)
    assert publish_due() == 0


@pytest.mark.parametrize("seconds", [-3600, -400 * 86_400])
def test_a_dead_relay_blocks_nothing_after_the_clock_was_set_back(sent_often, clock_at, seconds):
    fleet(1)
    start()
    assert outbox._claim() is not None
    clock_at(seconds)
    assert publish_due() == 1


def test_an_offline_node_gets_nothing(sent):
    fleet(2)
    start()
    silence("n0000")
    offline_nodes.declare_silent_nodes_offline()
    publish_due()
    assert [name for name, *_ in sent] == ["n0001"]
    ingestion.record_heartbeats([heartbeat_of("n0000")])
    assert publish_due() == 1


def test_what_was_given_back_is_published_at_once_when_it_is_released_again(sent):
    fleet(1)
    uid = start()
    publish_due()
    silence("n0000")
    offline_nodes.declare_silent_nodes_offline()
    assert phases(uid) == {"n0000": "scheduled"}
    ingestion.record_heartbeats([heartbeat_of("n0000")])
    assert publish_due() == 1
    assert Dispatch.objects.get().publishes == 1


def test_a_retry_is_published_at_once(sent):
    fleet(2)
    uid = start()
    publish_due()
    say(uid, "n0000", Phase.FAILED)
    retry_rollout(uid)
    advance(uid)
    publish_due()
    assert sent[2:] == [("n0000", uid, 2)]


def test_a_draining_node_still_answers_for_what_it_has(sent):
    fleet(1)
    start()
    drain_node("n0000")
    assert publish_due() == 1


def test_rollouts_side_by_side_and_more_than_a_batch(sent, monkeypatch):
    monkeypatch.setattr(outbox, "BATCH", 3)
    fleet(4)
    upload("other")
    first, second = start(), start(module_name="other")
    assert publish_due() == 8
    assert {uid for _, uid, _ in sent} == {first, second}


@pytest.mark.parametrize("again", [None, "c9"])
def test_an_operation_whose_build_is_gone_fails(sent, again):
    names = fleet(2)
    uid = start(max_parallel=1)
    append(artifact_deletion("greet", 1))
    if again:
        Operation.objects.update(content_sha256="older")
    publish_due()
    assert (operation(uid, names[0]).phase, operation(uid, names[0]).reason) == ("failed", "fetch_failed")
    assert sent == []


def test_an_operation_whose_package_is_lost_ends_and_is_not_published_again(sent):
    (name,) = fleet(1)
    uid = start()
    publish_due()
    say(uid, name, Phase.FAILED, reason=Reason.FETCH_FAILED, message="api answered 410 Gone instead of the package.")
    ingestion.record_heartbeats([heartbeat_of(name, hello=True)])
    assert publish_due() == 0
    assert (rollout(uid).phase, operation(uid, name).reason) == ("failed", "fetch_failed")


def test_a_removal_needs_no_build(sent):
    join("n1")
    start(action=Action.REMOVE)
    assert publish_due() == 1


def test_a_batch_costs_the_same_for_any_number(sent, django_assert_num_queries):
    fleet(60)
    start(nodes=tuple(f"n{n:04d}" for n in range(2)))
    with django_assert_num_queries(22):
        publish_due()
    upload("other")
    start(module_name="other", max_parallel=60)
    with django_assert_num_queries(22):
        publish_due()


def test_the_outbox_forgets_what_has_ended(sent):
    fleet(2)
    uid = start()
    publish_due()
    say(uid, "n0000")
    forget_finished()
    assert list(Dispatch.objects.values_list("operation", flat=True)) == [f"{uid}:n0001"]


def test_a_step_that_fails_keeps_no_other_from_its_work(sent, monkeypatch, caplog):
    fleet(1)
    uid = start(released=False)

    def broken():
        raise RuntimeError("boom")

    monkeypatch.setattr(timeouts, "end_overdue_operations", broken)
    assert run_once()[0] is False
    assert (phases(uid), len(sent)) == ({"n0000": "queued"}, 1)
    assert "boom" in caplog.text


def test_flushall_delays_and_changes_nothing_else(broker):
    names = fleet(2)
    start()
    publish_due()
    broker.flush()
    shift(1000)
    ingestion.record_heartbeats([heartbeat_of(name) for name in names])
    assert publish_due() == 2
    assert [broker.waiting(queue_for(name)) for name in names] == [1, 1]


def test_the_queue_of_a_silent_node_is_purged(broker):
    fleet(1)
    start()
    publish_due()
    outbox.purge_queues(["n0000"])
    assert broker.waiting(queue_for("n0000")) == 0


def add_ended(count):
    """So many operations like the one there is, but ended; in one statement, because objects take seconds."""
    changed = {
        "key": "'old:' || number",
        "node": "'m' || number % 100",
        "phase": "'succeeded'",
        "rollout": "'old'",
        "finished_at": "scheduled_at",
        "deadline_at": "NULL",
    }
    columns = [each.column for each in Operation._meta.concrete_fields if each.column]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH RECURSIVE numbers(number) AS (
                SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {count}
            )
            INSERT INTO {Operation._meta.db_table} ({", ".join(columns)})
            SELECT {", ".join(changed.get(each, each) for each in columns)} FROM {Operation._meta.db_table}, numbers
            """
        )
        cursor.execute("ANALYZE")


@pytest.mark.slow
def test_what_is_due_is_found_without_reading_what_has_ended(sent):
    fleet(1)
    start()
    add_ended(50_000)
    now = database_now()
    overdue = Operation.objects.filter(phase__in=["queued", "loading"], deadline_at__lt=now)
    for query, index in [
        (outbox._due(now), "operations_in_hand"),
        (overdue, "operations_in_hand"),
        (Operation.objects.filter(node="m1", finished_at__isnull=True), "operations_unfinished"),
        (Operation.objects.filter(behind=True, node__in=[f"m{number}" for number in range(500)]), "operations_behind"),
    ]:
        assert index in query.explain(), query.explain()
