"""Events on their way to receivers: real commits, real sockets, the control worker's own thread."""

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from dataclasses import replace
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command

from api.events import event_document
from eventstore import database_now, head, load, read, registry
from eventstore.waiting import LISTEN_SECONDS
from modfleet.certificate import ensure_certificate
from tests.integration.webhooks.conftest import join, register
from webhooks import deliver, sending, services
from webhooks.events import WebhookDisabled, webhook_stream
from webhooks.models import Webhook
from webhooks.signature import key_of

pytestmark = pytest.mark.usefixtures("committed_db")


def row(uid):
    return Webhook.objects.get(uid=uid)


def hanging(release):
    """A receiver's answer that comes only in the end."""

    def answer(request):
        release.wait(timeout=3600)
        return 204

    return answer


def test_it_works(receiver, delivering, waits):
    there = receiver()
    uid = register(there.url)
    delivering()
    join("a")
    waits(lambda: there.received)
    (recorded,) = read(after=head() - 1)
    assert there.received[0].event == json.loads(json.dumps(event_document(recorded)))
    assert there.received[0].headers["content-type"] == "application/json"
    waits(lambda: row(uid).position == head())
    assert row(uid).last_delivered_at is not None
    assert row(uid).lease is None


def test_an_event_leaves_at_once(receiver, delivering, waits):
    there = receiver()
    register(there.url)
    delivering()
    join("warm")
    waits(lambda: there.received)
    times = []
    for name in "abcde":
        started = time.monotonic()
        join(name)
        waits(lambda name=name: name in there.nodes)
        times.append(time.monotonic() - started)
    assert min(times) < 0.2 < LISTEN_SECONDS


def test_the_signature_is_that_of_the_specification(receiver, delivering, waits):
    there = receiver()
    uid = register(there.url)
    delivering()
    join("a")
    waits(lambda: there.received)
    got = there.received[0]
    signed = f"{got.id}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(key_of(row(uid).secret), signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 10


def test_a_refused_event_comes_again_with_the_same_id(receiver, delivering, waits, soon):
    answers = iter([500, 301, 404])
    there = receiver(lambda _: next(answers, 200))
    uid = register(there.url)
    delivering()
    join("a", "b")
    waits(lambda: len(there.received) == 5)
    assert there.nodes == ["a", "a", "a", "a", "b"]
    assert len({each.id for each in there.received[:4]}) == 1
    assert there.received[4].id != there.received[0].id
    waits(lambda: row(uid).position == head())
    assert (row(uid).failures, row(uid).last_error, row(uid).next_attempt_at) == (0, "", None)


def test_events_come_in_the_order_of_the_log(receiver, delivering, waits, soon):
    count = [0]

    def answer(request):
        count[0] += 1
        return 503 if count[0] % 3 == 0 else 200

    there = receiver(answer)
    register(there.url)
    names = [f"n{number}" for number in range(30)]
    join(*names)
    delivering()
    waits(lambda: "n29" in there.nodes)
    assert list(dict.fromkeys(there.nodes)) == names


def test_a_dead_receiver_does_not_delay_another(receiver, delivering, waits, monkeypatch):
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 3600)
    release = threading.Event()
    dead, well = receiver(hanging(release)), receiver()
    register(dead.url, "node.")
    refused = register("http://127.0.0.1:9/", "node.")
    register(well.url, "node.")
    delivering()
    join("a", "b", "c")
    waits(lambda: well.nodes == ["a", "b", "c"])
    assert dead.nodes == ["a"]
    waits(lambda: row(refused).failures)
    assert "Connect" in row(refused).last_error
    release.set()


def test_a_receiver_that_does_not_answer_in_time_has_failed(receiver, delivering, waits, monkeypatch):
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 0.2)
    release = threading.Event()
    uid = register(receiver(hanging(release)).url)
    join("a")
    delivering()
    waits(lambda: row(uid).failures)
    assert row(uid).last_error.startswith("no whole answer within")
    release.set()


def test_an_answer_that_does_not_end_in_time_is_a_failure(receiver, delivering, waits, monkeypatch):
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 0.2)
    uid = register(receiver(lambda _: (200, {"Content-Length": "10"}, b"12345")).url)
    join("a")
    delivering()
    waits(lambda: row(uid).failures)
    assert row(uid).position < head()


def test_of_a_long_answer_only_the_beginning_is_read(receiver, delivering, waits):
    there = receiver(lambda _: (200, {"Content-Length": "1000000000"}, b"x" * 200_000))
    uid = register(there.url)
    join("a", "b")
    delivering()
    waits(lambda: row(uid).position == head())
    assert there.nodes == ["a", "b"]


def test_a_receiver_s_cookies_are_not_kept(receiver, delivering, waits):
    there = receiver(lambda _: (200, {"Set-Cookie": "a=b"}, b""))
    register(there.url)
    join("a", "b")
    delivering()
    waits(lambda: len(there.received) == 2)
    assert "cookie" not in there.received[1].headers


def test_an_event_of_a_newer_program_is_not_left_out(monkeypatch):
    uid = register("http://127.0.0.1:9/")
    join("a")
    with monkeypatch.context() as patch:
        patch.delitem(registry._classes, "node.joined.v1")
        assert deliver.claim_due(busy=(), most=1).claims == ()
    assert "node.joined.v1" in row(uid).last_error
    assert row(uid).position < head()
    Webhook.objects.update(next_attempt_at=None)
    (claimed,) = deliver.claim_due(busy=(), most=1).claims
    assert claimed.waiting[0].type == "node.joined.v1"


def test_a_redirect_is_a_failure(receiver, delivering, waits):
    other = receiver()
    there = receiver(lambda _: (307, {"Location": other.url}, b""))
    uid = register(there.url)
    join("a")
    delivering()
    waits(lambda: row(uid).failures)
    assert row(uid).last_error == "answered 307"
    assert other.received == []


@pytest.mark.parametrize("answer", [b"-ERR of another server\r\n\r\n", b"HTTP/1.1 200 OK\r\na secret\r\n\r\n"])
def test_nothing_of_an_answer_that_is_no_http_is_kept(delivering, waits, answer):
    """Who may register an address must not read by it what else listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uid = register(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        join("a")
        delivering()
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)
            waits(lambda: row(uid).failures)
    assert row(uid).last_error == "the answer is not HTTP, or ended too soon"


def test_a_proxy_is_honoured_and_left_out_for_whom_it_is_not(receiver, delivering, waits, monkeypatch):
    proxy, near = receiver(), receiver()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    register("http://receiver.example.com/far")
    register(near.url)
    join("a")
    delivering()
    waits(lambda: proxy.received and near.received)
    assert proxy.received[0].path == "http://receiver.example.com/far"
    assert near.received[0].path == "/hook"


def test_an_authority_of_ones_own(receiver, delivering, waits, soon, monkeypatch, tmp_path):
    certificate, key = ensure_certificate(tmp_path, ["127.0.0.1"])
    there = receiver(tls=(certificate, key))
    uid = register(there.url)
    join("a")
    without = delivering()
    waits(lambda: "CERTIFICATE_VERIFY_FAILED" in row(uid).last_error)
    without.stop()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    delivering()
    waits(lambda: row(uid).position == head())
    assert there.nodes == ["a"]


def test_a_crash_before_the_cursor_moves_delivers_again_with_the_same_id(receiver, delivering, waits):
    there = receiver()
    uid = register(there.url)
    join("a")
    (crashed,) = deliver.claim_due(busy=(), most=9).claims
    assert deliver.claim_due(busy=(), most=9).claims == ()
    Webhook.objects.update(leased_until=database_now() - timedelta(seconds=1))
    delivering()
    waits(lambda: there.received)
    assert there.received[0].id == sending.message_id(crashed.waiting[0])
    waits(lambda: row(uid).position == head())
    crashed.acknowledge()
    deliver.record_outcome(crashed, "too late")  # by the one that was taken for dead
    assert (row(uid).failures, row(uid).position) == (0, head())


def test_who_is_stopped_gives_its_claims_back(receiver, delivering, waits):
    release = threading.Event()
    there = receiver(hanging(release))
    uid = register(there.url)
    join("a")
    thread = delivering()
    waits(lambda: there.received)
    thread.stop()
    assert (row(uid).lease, row(uid).failures) == (None, 0)
    release.set()
    delivering()
    waits(lambda: row(uid).position == head())
    assert len({each.id for each in there.received}) == 1


def test_who_is_stopped_notes_what_was_acknowledged(receiver, delivering, waits):
    release = threading.Event()
    there = receiver(lambda got: 204 if got.event["stream"] != "node:c" else hanging(release)(got))
    uid = register(there.url)
    join("a", "b", "c")
    thread = delivering()
    waits(lambda: there.nodes == ["a", "b", "c"])
    thread.stop()
    assert row(uid).position == there.received[1].event["position"]
    release.set()


def test_many_workers_deliver_each_event_once(receiver, delivering, waits):
    theres = [receiver() for _ in range(3)]
    uids = [register(each.url, "node.") for each in theres]
    delivering(3)
    names = [f"n{number}" for number in range(40)]
    join(*names)
    waits(lambda: all(row(uid).position == head() for uid in uids))
    assert [each.nodes for each in theres] == [names] * 3


def test_only_chosen_types_are_delivered(receiver, delivering, waits):
    some, exact = receiver(), receiver()
    uids = [register(some.url, "node.", "cluster."), register(exact.url, "cluster.settings_changed.v1")]
    from accounts.services import update_cluster_settings

    register("http://127.0.0.1:9/", "operation.")
    join("a")
    update_cluster_settings(name="new")
    delivering()
    waits(lambda: all(row(uid).position == head() for uid in uids))
    assert [each.event["type"] for each in some.received] == ["node.joined.v1", "cluster.settings_changed.v1"]
    assert [each.event["type"] for each in exact.received] == ["cluster.settings_changed.v1"]


def test_the_cursor_moves_past_other_types(delivering, waits):
    uid = register("http://127.0.0.1:9/", "operation.")
    delivering()
    join("a", "b", "c")
    waits(lambda: row(uid).position == head())
    assert (row(uid).last_delivered_at, row(uid).failures) == (None, 0)


def test_what_happened_before_it_was_registered_is_not_delivered(receiver, delivering, waits):
    there = receiver()
    join("before")
    register(there.url)
    join("after")
    delivering()
    waits(lambda: there.received)
    assert there.nodes == ["after"]


def test_a_disabled_webhook_goes_on_where_it_stopped(receiver, delivering, waits):
    there = receiver()
    uid = register(there.url)
    services.update_webhook(uid, services.WebhookChanges(enabled=False))
    join("a", "b")
    delivering()
    services.update_webhook(uid, services.WebhookChanges(enabled=True))
    waits(lambda: {"a", "b"} <= set(there.nodes))
    kinds = [each.event["type"] for each in there.received]
    assert kinds[:3] == ["webhook.changed.v1", "node.joined.v1", "node.joined.v1"]


def test_it_is_disabled_after_a_day_of_failures(receiver, delivering, waits):
    there = receiver(lambda _: 500)
    uid = register(there.url, "node.")
    Webhook.objects.update(failures=200, failing_since=database_now() - timedelta(hours=25))
    join("a")
    delivering()
    waits(lambda: not row(uid).enabled)
    first, last = load(webhook_stream(uid))
    assert last.event == WebhookDisabled(uid=uid, host=row(uid).host, failures=201, last_error="answered 500")
    assert last.metadata == replace(first.metadata, actor="system:webhooks", causation_id=first.event_id.hex)
    assert row(uid).disabled_reason.startswith("Nothing could be delivered for 24 hours")
    there.answer = lambda _: 200
    services.update_webhook(uid, services.WebhookChanges(enabled=True))
    waits(lambda: row(uid).failures == 0 and row(uid).position == head())
    assert set(there.nodes) == {"a"}
    assert row(uid).disabled_reason == ""


def test_a_test_is_delivered_whatever_the_types_are(receiver, delivering, waits):
    there, other = receiver(), receiver()
    uid, beside = register(there.url, "operation."), register(other.url, "operation.")
    delivering()
    asked = services.request_test(uid)
    waits(lambda: there.received)
    assert there.received[0].event["type"] == "webhook.test_requested.v1"
    assert there.received[0].event["position"] == asked.position
    waits(lambda: row(beside).position == head())
    assert other.received == []


def test_a_test_has_a_failing_webhook_tried_at_once(receiver, delivering, waits):
    there = receiver()
    uid = register(there.url)
    Webhook.objects.update(failures=9, next_attempt_at=database_now() + timedelta(minutes=5))
    delivering()
    services.request_test(uid)
    waits(lambda: there.received)


def test_waits_grow_up_to_five_minutes():
    uid = register("http://127.0.0.1:9/")
    join("a")
    waited = []
    for _ in range(12):
        Webhook.objects.update(next_attempt_at=None)
        (claimed,) = deliver.claim_due(busy=(), most=1).claims
        deliver.record_outcome(claimed, "answered 500")
        waited.append((row(uid).next_attempt_at - database_now()).total_seconds())
    for attempt, seconds in enumerate(waited):
        longest = min(2.0**attempt, 300)
        assert longest / 2 - 1 < seconds <= longest
    assert row(uid).failures == 12


def test_failures_count_from_the_last_event_that_was_acknowledged():
    uid = register("http://127.0.0.1:9/", "node.")
    join("a", "b")
    for _ in range(5):
        claimed = claimed_now()
        deliver.record_outcome(claimed, "answered 500")
    assert (row(uid).failures, row(uid).last_error) == (5, "answered 500")
    Webhook.objects.update(failing_since=database_now() - timedelta(hours=25))
    claimed = claimed_now()
    deliver.record_outcome(claimed, None)  # has the next ones at hand
    claimed.acknowledge()
    deliver.record_outcome(claimed, "answered 503")
    failed = row(uid)
    assert (failed.failures, failed.last_error, failed.enabled) == (1, "answered 503", True)
    assert database_now() - failed.failing_since < timedelta(hours=1)
    assert failed.next_attempt_at - database_now() <= timedelta(seconds=deliver.FIRST_RETRY_SECONDS)
    deliver.record_outcome(claimed_now(), "answered 503")
    assert (row(uid).failures, row(uid).failing_since) == (2, failed.failing_since)


def claimed_now():
    """The one claim, without its wait."""
    Webhook.objects.update(next_attempt_at=None)
    (claimed,) = deliver.claim_due(busy=(), most=1).claims
    return claimed


def test_who_changes_a_webhook_begins_its_count_anew():
    uid = register("http://127.0.0.1:9/", "node.")
    join("a")
    for _ in range(3):
        deliver.record_outcome(claimed_now(), "answered 500")
    services.update_webhook(uid, services.WebhookChanges(url="http://127.0.0.1:10/"))
    assert (row(uid).failures, row(uid).failing_since, row(uid).next_attempt_at) == (0, None, None)


@pytest.mark.parametrize("column", ["next_attempt_at", "leased_until"])
def test_nothing_waits_for_a_clock_that_was_set_back(column):
    uid = register("http://127.0.0.1:9/", "node.")
    join("a")
    Webhook.objects.update(**{column: database_now() + timedelta(days=1)})
    (claimed,) = deliver.claim_due(busy=(), most=1).claims
    assert claimed.uid == uid


def test_a_new_address_is_used_from_the_next_attempt_on(receiver, delivering, waits):
    there = receiver()
    uid = register("http://127.0.0.1:9/")
    join("a")
    delivering()
    waits(lambda: row(uid).failures)
    services.update_webhook(uid, services.WebhookChanges(url=there.url))
    waits(lambda: there.received)
    assert there.nodes[0] == "a"


def test_nothing_is_delivered_after_it_was_deleted(receiver, delivering, waits):
    release = threading.Event()
    there = receiver(hanging(release))
    other = receiver()
    uid = register(there.url, "node.")
    after = register(other.url, "webhook.", "node.")
    delivering()
    join("a", "b")
    waits(lambda: there.received)
    services.delete_webhook(uid)
    release.set()
    join("c")
    waits(lambda: row(after).position == head())
    assert there.nodes == ["a"]


def test_projections_are_rebuilt_without_webhooks(receiver):
    register(receiver().url)
    join("a")
    before = list(Webhook.objects.values())
    call_command("rebuild_projections", stdout=StringIO())
    assert list(Webhook.objects.values()) == before


def test_no_secret_is_ever_said(receiver, delivering, waits, caplog):
    caplog.set_level("DEBUG")
    there = receiver(lambda _: 500)
    uid = register(there.url + "/t0ken")
    join("a")
    delivering()
    waits(lambda: row(uid).failures)
    Webhook.objects.update(next_attempt_at=None, url="http://127.0.0.1:9/t0ken")
    (claimed,) = waits(lambda: deliver.claim_due(busy=(), most=1).claims)
    said = caplog.text + repr(row(uid)) + repr(claimed) + str([each.event for each in load(webhook_stream(uid))])
    assert row(uid).secret not in said
    assert "t0ken" not in said
