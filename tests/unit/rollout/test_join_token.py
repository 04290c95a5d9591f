"""The rules of one join token."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rollout.domain.errors import InvalidJoinTokenError, InvalidTokenError, JoinTokenNotFoundError
from rollout.domain.join_token.commands import CreateJoinToken, RevokeJoinToken, UseJoinToken
from rollout.domain.join_token.decider import JOIN_TOKEN, MOST_USES
from rollout.domain.join_token.events import JoinTokenCreated, JoinTokenRevoked, JoinTokenUsed

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CREATE = CreateJoinToken(
    token="t", secret_sha256="s", node="web-1", expires_at=NOW + timedelta(hours=1), labels={"zone": "a"}
)
GROUP = replace(CREATE, node="", pattern="cache-*", uses=2)
USE = UseJoinToken(token="t", secret_sha256="s", node="web-1", public_key="k", now=NOW)
REVOKE = RevokeJoinToken(token="t")


def given(*commands):
    state = JOIN_TOKEN.initial
    for command in commands:
        state = JOIN_TOKEN.fold(JOIN_TOKEN.decide(state, command), state)
    return state


def use(name, key="k", **more):
    return replace(USE, node=name, public_key=key, **more)


def is_refused(state, command):
    with pytest.raises(InvalidTokenError):
        JOIN_TOKEN.decide(state, command)
    return True


def test_it_works():
    (created,) = JOIN_TOKEN.decide(given(), CREATE)
    assert isinstance(created, JoinTokenCreated)
    assert (created.node, created.uses, created.labels) == ("web-1", 1, {"zone": "a"})
    assert JOIN_TOKEN.decide(given(CREATE), USE) == [JoinTokenUsed(token="t", node="web-1", public_key="k")]
    assert JOIN_TOKEN.decide(given(CREATE), REVOKE) == [JoinTokenRevoked(token="t")]


@pytest.mark.parametrize("command", [USE, REVOKE])
def test_the_second_time_nothing_happens(command):
    assert JOIN_TOKEN.decide(given(CREATE, command), command) == []


def test_the_same_node_and_key_may_repeat_its_use_after_the_end_of_the_token():
    assert JOIN_TOKEN.decide(given(CREATE, USE), replace(USE, now=NOW + timedelta(days=1))) == []


@pytest.mark.parametrize(
    ("state", "command"),
    [
        (given(), USE),
        (given(CREATE), replace(USE, secret_sha256="other")),
        (given(CREATE), use("web-2")),
        (given(CREATE), use("WEB-1")),
        (given(CREATE), replace(USE, now=CREATE.expires_at)),
        (given(CREATE, REVOKE), USE),
        (given(CREATE, USE, REVOKE), USE),
        (given(CREATE, USE), use("web-1", key="another")),
        (given(CREATE, USE), replace(USE, secret_sha256="other")),
        (given(GROUP), use("web-1")),
        (given(GROUP), use("a-cache-1")),
        (given(GROUP, use("cache-1"), use("cache-2")), use("cache-3")),
        (given(GROUP, use("cache-1"), use("cache-1", key="another")), use("cache-2")),
    ],
    ids=range(13),
)
def test_a_use_that_is_refused(state, command):
    assert is_refused(state, command)


def test_a_group_token_counts_nodes_and_keys():
    state = given(GROUP, use("cache-1"), use("cache-1"), use("cache-2"))
    assert state.used == {("cache-1", "k"), ("cache-2", "k")}


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("cache-*", "cache-", True),
        ("cache-*", "cache-eu-1", True),
        ("cache-*-eu", "cache-1-eu", True),
        ("cache-*-eu", "cache-1-us", False),
        ("*.example", "a.example", True),
        ("a.*", "ab1", False),
        ("*cache*", "my-cache-1", True),
    ],
)
def test_only_the_star_is_special(pattern, name, is_match):
    state = given(replace(GROUP, pattern=pattern))
    assert bool(JOIN_TOKEN.decide(state, use(name))) if is_match else is_refused(state, use(name))


@pytest.mark.parametrize(
    "command",
    [
        replace(CREATE, node=""),
        replace(CREATE, pattern="web-*"),
        replace(CREATE, uses=0),
        replace(CREATE, uses=2),
        replace(GROUP, uses=MOST_USES + 1),
        replace(GROUP, pattern="*"),
        replace(GROUP, pattern="-*"),
        replace(GROUP, pattern="cache-1"),
        replace(GROUP, pattern="cache-[0-9]*"),
        replace(GROUP, pattern="cache-?*"),
        replace(GROUP, pattern="cache *"),
        replace(GROUP, pattern="c" * 128 + "*"),
    ],
    ids=range(12),
)
def test_a_token_that_is_wrong(command):
    with pytest.raises(InvalidJoinTokenError):
        JOIN_TOKEN.decide(given(), command)


def test_a_token_that_does_not_exist_is_not_revoked():
    with pytest.raises(JoinTokenNotFoundError):
        JOIN_TOKEN.decide(given(), REVOKE)
