"""POST with an Idempotency-Key."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from accounts.permissions import Access
from api import idempotency
from api.errors import ConflictError
from api.idempotency import KEPT, idempotent, sweep_idempotency_records
from api.models import IdempotencyRecord
from eventstore import database_now


class Things(APIView):
    """Counts how often it does its work."""

    permissions = {"POST": Access.SIGNED_IN}
    made: list[object] = []
    refuses = False

    @idempotent
    def post(self, request: Request, /, **_: Any) -> Response:
        self.made.append(request.data)
        if self.refuses:
            raise ConflictError
        return Response({"number": len(self.made)}, status=201, headers={"Location": "/things/1"})


@pytest.fixture
def post(alice):
    Things.made = []

    def post(body=None, *, key="k1", user=alice, path="/things", **settings):
        headers = {} if key is None else {"Idempotency-Key": key}
        request = APIRequestFactory().post(path, body or {"a": 1}, format="json", headers=headers)
        force_authenticate(request, user)
        return Things.as_view(**settings)(request)

    return post


def test_it_works(post):
    first, again = post(), post()
    assert (first.status_code, first.data, first["Location"]) == (201, {"number": 1}, "/things/1")
    assert (again.status_code, again.data, again["Location"]) == (201, {"number": 1}, "/things/1")
    assert (first.get("Idempotency-Replayed"), again["Idempotency-Replayed"]) == (None, "true")
    assert len(Things.made) == 1


def test_without_a_key_it_is_done_again(post):
    assert (post(key=None).data, post(key=None).data) == ({"number": 1}, {"number": 2})


def test_the_order_of_keys_and_white_space_do_not_matter(post):
    post({"a": 1, "b": 2})
    assert post({"b": 2, "a": 1})["Idempotency-Replayed"] == "true"


def test_another_body(post):
    post({"a": 1})
    response = post({"a": 2})
    assert (response.status_code, response.data["error_code"]) == (409, "idempotency_key_reused")


def test_a_digest_without_the_secret_key_is_another(post, settings):
    post()
    settings.SECRET_KEY = "another"
    assert post().status_code == 409


def test_another_query(post):
    post()
    assert post(path="/things?force=1").status_code == 409


def test_another_user_or_route_or_key_is_another_request(post, bob):
    post()
    for other in ({"user": bob}, {"path": "/others"}, {"key": "k2"}):
        assert post(**other).get("Idempotency-Replayed") is None


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é", "a\tb"])
def test_a_key_that_is_none(post, key):
    response = post(key=key)
    assert (response.status_code, response.data["error_code"]) == (400, "invalid_request")
    assert response.data["description"].startswith("Idempotency-Key: ")


def test_the_longest_key(post):
    assert post(key="~" * 255).status_code == 201


def test_a_refusal_is_not_kept(post):
    assert post(refuses=True).status_code == 409
    assert post().status_code == 201


def test_refused_because_the_same_request_was_first(post, monkeypatch):
    answers = iter([None, Response({"number": 7}, status=201)])
    monkeypatch.setattr(idempotency, "stored_response", lambda *_: next(answers))
    response = post(refuses=True)
    assert (response.status_code, response.data) == (201, {"number": 7})


def test_after_a_day_it_is_done_again(post):
    post()
    IdempotencyRecord.objects.update(created_at=database_now() - KEPT)
    assert post({"a": 2}).data == {"number": 2}
    assert IdempotencyRecord.objects.count() == 1


@pytest.mark.parametrize("days", [-2, 2])
def test_the_day_is_one_of_the_database(post, monkeypatch, days):
    first = post()
    monkeypatch.setattr(timezone, "now", lambda: datetime.now(UTC) + timedelta(days=days))
    assert post().data == first.data
    IdempotencyRecord.objects.update(created_at=database_now() - KEPT)
    assert post({"a": 2}).data == {"number": 2}


def test_sweep(post):
    post()
    post(key="k2")
    IdempotencyRecord.objects.filter(key="k1").update(created_at=database_now() - KEPT - timedelta(seconds=1))
    assert sweep_idempotency_records() == 1
    assert IdempotencyRecord.objects.get().key == "k2"
