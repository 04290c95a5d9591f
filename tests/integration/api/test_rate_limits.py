"""429 and Retry-After: failed logins, uploads, requests. `test_wire` has the real server."""

import time
from dataclasses import replace

import pytest

from accounts import credentials, throttles
from accounts.credentials import remembered
from api import rate_limits
from tests.plugins.cast import PASSWORD, basic, client_of

URL = "/v1/cluster"
UPLOADS = ("/v2/modules/user-defined/artifacts", "/v2/local/modules/user-defined/artifacts", "/v2/modules")
LOGIN = "/admin/login/"


@pytest.fixture
def limited(settings):
    """Sets limits; none of the others hold."""

    def limit(**limits):
        off = {"failed_logins_per_minute": 0, "failed_logins_per_address_per_minute": 0}
        settings.ENVIRONMENT = replace(settings.ENVIRONMENT, **off | limits)

    return limit


@pytest.fixture
def later(monkeypatch):
    """Lets seconds pass."""

    def wait(seconds):
        now = time.monotonic_ns() + int(seconds * 1e9)
        monkeypatch.setattr(time, "monotonic_ns", lambda: now)

    return wait


def fails(client, login="bob", **meta):
    return client.get(URL, headers={"authorization": basic(login, "wrong")}, **meta)


def refused(response, what, seconds):
    description = f"Too many {what}: try again in {seconds} s."
    assert (response.status_code, response["Retry-After"]) == (429, str(seconds))
    assert response.json() == {"error_code": "too_many_requests", "description": description}


def test_after_too_many_failures_the_password_is_not_looked_at(anyone, bob, limited, monkeypatch):
    limited(failed_logins_per_minute=3)
    assert [fails(anyone).status_code for _ in range(3)] == [401, 401, 401]
    monkeypatch.setattr(credentials, "check_password", lambda *_: pytest.fail("looked at"))
    refused(fails(anyone), "failed logins", 20)
    refused(anyone.get(URL, headers={"authorization": basic("bob")}), "failed logins", 20)


def test_a_refused_login_asks_no_database(anyone, bob, limited, django_assert_num_queries):
    limited(failed_logins_per_minute=1)
    fails(anyone)
    with django_assert_num_queries(0):
        assert fails(anyone).status_code == 429


def test_after_the_seconds_of_retry_after_one_more_is_let_in(anyone, bob, limited, later):
    limited(failed_logins_per_minute=3)
    waits = [fails(anyone).get("Retry-After") for _ in range(4)]
    later(int(waits[-1]))
    assert [fails(anyone).status_code for _ in range(2)] == [401, 429]


def test_who_was_verified_a_moment_ago_is_let_in(anyone, bob, limited):
    limited(failed_logins_per_minute=1)
    assert client_of(bob).get(URL).status_code == 200
    assert [fails(anyone).status_code for _ in range(2)] == [401, 429]
    assert client_of(bob).get(URL).status_code == 200


def test_correct_logins_are_not_counted(bob, limited):
    limited(failed_logins_per_minute=1, failed_logins_per_address_per_minute=1)
    for _ in range(3):
        remembered.clear()
        assert client_of(bob).get(URL).status_code == 200


def test_nobody_is_locked_out_from_another_address(anyone, bob, limited):
    limited(failed_logins_per_minute=1, failed_logins_per_address_per_minute=1)
    assert [fails(anyone, REMOTE_ADDR="203.0.113.7").status_code for _ in range(2)] == [401, 429]
    assert client_of(bob).get(URL, REMOTE_ADDR="203.0.113.8").status_code == 200


def test_an_address_has_its_limit_over_all_accounts(anyone, bob, limited):
    limited(failed_logins_per_minute=2, failed_logins_per_address_per_minute=3)
    assert [fails(anyone, login).status_code for login in ("a", "b", "c", "d")] == [401, 401, 401, 429]


def test_a_network_of_ipv6_counts_as_one_address(anyone, bob, limited):
    limited(failed_logins_per_minute=1)
    found = [fails(anyone, REMOTE_ADDR=f"2001:db8::{each}").status_code for each in (1, 2)]
    assert [*found, fails(anyone, REMOTE_ADDR="2001:db8:0:1::1").status_code] == [401, 429, 401]


def test_addresses_of_ipv4_in_ipv6_are_told_apart(anyone, bob, limited):
    limited(failed_logins_per_minute=1)
    assert [fails(anyone, REMOTE_ADDR=f"::ffff:203.0.113.{each}").status_code for each in (1, 2)] == [401, 401]


def test_another_spelling_of_a_login_is_no_other_login(anyone, bob, limited):
    limited(failed_logins_per_minute=1)
    found = [fails(anyone, login).status_code for login in ("bob@example.com", "BOB@example.com", " bob@example.com")]
    assert found == [401, 429, 429]


@pytest.mark.parametrize(("proxies", "statuses"), [(0, [401, 429]), (1, [401, 401]), (2, [401, 429])])
def test_the_address_is_the_one_that_trusted_proxies_saw(anyone, bob, limited, proxies, statuses):
    limited(failed_logins_per_minute=1, trusted_proxies=proxies)
    chains = ("1.1.1.1, 203.0.113.7, 10.0.0.1", "2.2.2.2, 203.0.113.7, 10.0.0.2")
    assert [fails(anyone, HTTP_X_FORWARDED_FOR=each).status_code for each in chains] == statuses


def test_authorize_counts_with_basic(anyone, bob, limited):
    limited(failed_logins_per_minute=2)
    asked = {"username": "bob", "password": "wrong"}
    assert anyone.post("/v1/users/authorize", asked, format="json").status_code == 401
    assert fails(anyone).status_code == 401
    refused(anyone.post("/v1/users/authorize", asked | {"password": PASSWORD}, format="json"), "failed logins", 30)


def test_the_form_of_the_admin_site_counts_with_basic(anyone, client, bob, limited):
    limited(failed_logins_per_minute=2)
    assert client.post(LOGIN, {"username": "bob", "password": "wrong"}).status_code == 200
    assert fails(anyone).status_code == 401
    response = client.post(LOGIN, {"username": "bob", "password": PASSWORD})
    assert (response.status_code, response["Retry-After"]) == (429, "30")
    assert b"Too many failed logins: try again in 30 s." in response.content
    assert client.get("/admin/").status_code == 302


def test_the_form_lets_in_who_fails_less_often(client, bob, limited):
    limited(failed_logins_per_minute=2)
    client.post(LOGIN, {"username": "bob", "password": "wrong"})
    assert client.post(LOGIN, {"username": "bob", "password": PASSWORD}).status_code == 302
    assert client.get("/admin/").status_code == 200


def test_requests_of_a_user_are_limited_whatever_the_address(alice, bob, limited):
    limited(requests_per_minute=2)
    statuses = [client_of(bob).get(URL, REMOTE_ADDR=f"203.0.113.{each}").status_code for each in range(3)]
    assert statuses == [200, 200, 429]
    refused(client_of(bob).get(URL), "requests", 30)
    assert client_of(alice).get(URL).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/users", "/v2/rollouts", "/v2/nodes", "/v1/modules", "/v2/modules/user-defined", UPLOADS[1]]
)
def test_any_route_may_answer_it(alice, limited, path):
    limited(requests_per_minute=1)
    client_of(alice).get(URL)
    refused(client_of(alice).get(path), "requests", 60)


def test_without_credentials_an_address_is_limited(anyone, bob, limited):
    limited(requests_per_minute=1)
    asked = {"username": "x", "password": "y"}
    addresses = ("203.0.113.7", "203.0.113.7", "203.0.113.8")
    found = [anyone.post("/v1/users/authorize", asked, format="json", REMOTE_ADDR=each) for each in addresses]
    assert [each.status_code for each in found] == [401, 429, 401]


def test_a_poller_of_fifty_requests_a_second_is_let_in_for_good(db, settings, monkeypatch):
    for each in range(10_000):
        monkeypatch.setattr(time, "monotonic_ns", lambda each=each: each * 20_000_000)
        throttles.requests.take(1, "requests", per_minute=settings.ENVIRONMENT.requests_per_minute)


@pytest.mark.parametrize("path", UPLOADS)
def test_uploads_of_a_user_are_limited(alice, bob, limited, path):
    limited(uploads_per_minute=1)
    assert client_of(alice).post(UPLOADS[0], {}).status_code != 429
    refused(client_of(alice).post(path, {}), "uploads", 60)
    assert client_of(alice).get(UPLOADS[0]).status_code == 200


def test_nothing_is_limited_with_0(anyone, bob, limited):
    limited(requests_per_minute=0, uploads_per_minute=0)
    assert {fails(anyone).status_code for _ in range(12)} == {401}
    assert {client_of(bob).get(URL).status_code for _ in range(12)} == {200}


def test_a_limit_remembers_only_so_many():
    limit = rate_limits.RateLimit(size=2)
    for key in "abc":
        limit.count(key, per_minute=1)
    assert [limit.seconds_to_wait(key, per_minute=1) > 0 for key in "abc"] == [False, True, True]
