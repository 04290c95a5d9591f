"""Tokens: what they are good for, and until when."""

import time

import jwt
import pytest
from django.conf import settings

from accounts import services, tokens
from accounts.roles import Role
from accounts.services import UserChanges


def get(anyone, token: str):
    return anyone.get("/v1/cluster", headers={"authorization": f"JWT {token}"})


def forged(bob, key: str | bytes = b"", algorithm: str = "HS256", **changes) -> str:
    now = int(time.time())
    claims = {"sub": str(bob.uid), "ver": bob.credential_version, "iat": now, "exp": now + 60, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key or tokens._key(), algorithm=algorithm)


def test_it_works(anyone, bob):
    assert get(anyone, tokens.issue_token(bob)).status_code == 200


def test_it_costs_one_row(anyone, bob, django_assert_num_queries):
    token = tokens.issue_token(bob)
    with django_assert_num_queries(2):  # the user, and the settings that are asked for
        get(anyone, token)


@pytest.mark.parametrize(
    "changes",
    [
        UserChanges(password="another horse 2"),
        UserChanges(role=Role.DB_VIEWER),
        UserChanges(active=False),
    ],
)
def test_a_change_that_matters_ends_it(anyone, alice, bob, changes):
    token = tokens.issue_token(bob)
    services.update_user(bob.uid, changes, by=alice)
    assert get(anyone, token).status_code == 401


def test_a_new_email_address_does_not_end_it(anyone, alice, bob):
    token = tokens.issue_token(bob)
    services.update_user(bob.uid, UserChanges(email="robert@example.com"), by=alice)
    assert get(anyone, token).status_code == 200


def test_deletion_ends_it(anyone, alice, bob):
    token = tokens.issue_token(bob)
    services.delete_user(bob.uid, by=alice)
    assert get(anyone, token).status_code == 401


def test_a_forged_one_is_as_good_as_ours_only_with_our_key(anyone, bob):
    assert get(anyone, forged(bob)).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "another key, which is long enough for HS256"},
        {"algorithm": "HS512", "key": b"k" * 64},
        {"algorithm": "none"},
        {"exp": 1},
        {"exp": None},
        {"ver": 99},
        {"ver": "x"},
        {"ver": None},
        {"sub": "x"},
        {"sub": None},
        {"sub": str(10**30)},
    ],
)
def test_a_forged_one(anyone, bob, changes):
    if changes.get("algorithm") == "none":
        _, claims, _ = forged(bob).split(".")
        token = f"eyJhbGciOiJub25lIn0.{claims}."
    else:
        token = forged(bob, **changes)
    response = get(anyone, token)
    assert response.status_code == 401
    assert response.json()["error_code"] == "unauthenticated"


def test_the_key_is_not_the_secret_itself(anyone, bob):
    assert get(anyone, forged(bob, key=settings.SECRET_KEY)).status_code == 401


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é", "a b", "." * 1000])
def test_no_token_at_all(anyone, db, token):
    assert get(anyone, token).status_code == 401
