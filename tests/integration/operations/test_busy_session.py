"""What a real server writes while it is used, well and badly: whole lines of JSON, and no secret in any."""

import json
import os

import pytest

from tests.plugins.cast import PASSWORD, basic
from tests.plugins.server import bootstrapped, serving

pytestmark = pytest.mark.slow
KEY, TOKEN, BROKER = "key-of-the-server-that-nobody-sees", "token-of-the-scraper-0123456789", "word-of-the-broker"
HOOK = "path-that-is-a-credential"


@pytest.fixture(scope="module")
def session(django_db_setup, django_db_blocker, tmp_path_factory):
    """The lines of the log after it, and what must stand in none of them."""
    folder = tmp_path_factory.mktemp("busy")
    settings = {
        "MODFLEET_SECRET_KEY": KEY,
        "MODFLEET_METRICS_TOKEN": TOKEN,
        "MODFLEET_BROKER_URL": f"redis://:{BROKER}@127.0.0.1:1/0",
        "MODFLEET_LOG_FORMAT": "json",
        "MODFLEET_LOG_LEVEL": "INFO",
    }
    log = folder / "stderr"
    with log.open("w") as file, django_db_blocker.unblock(), bootstrapped(folder) as environ:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            with serving(environ | settings, folder) as server:
                secrets = use(server)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")], log.read_text(), secrets


def use(server):
    admin = {"Authorization": basic("admin"), "Content-Type": "application/json"}
    _, body = server.ask("POST", "/v1/users/authorize", json.dumps({"username": "admin", "password": PASSWORD}), admin)
    jwt = json.loads(body)["access_token"]
    hook = {"url": f"https://receiver.example.com/{HOOK}", "types": ["rollout."]}
    _, body = server.ask("POST", "/v2/webhooks", json.dumps(hook), admin)
    secret = json.loads(body)["secret"]
    link = "/v2/downloads/WyJhIiwiYiJd:1abc:signature-of-a-link"
    new = {"name": "eve", "email": "e@example.com", "password": "hunter2 hunter2", "role": "cluster_viewer"}
    for method, path, text, headers in (
        ("GET", "/v2/nodes", None, {"Authorization": f"JWT {jwt}"}),
        ("GET", "/v2/nodes", None, {"Authorization": f"Bearer {jwt}x"}),
        ("GET", "/v2/nodes", None, {"Authorization": basic("admin", "wrong-but-nearly")}),
        ("GET", f"/v2/nodes?token={jwt}", None, admin),
        ("GET", link, None, {}),
        ("GET", f"/nowhere/{jwt}", None, {}),
        ("POST", "/v1/users", json.dumps(new), admin),
        ("POST", "/v1/users", json.dumps(new)[:-5], admin),
        ("GET", "/metrics", None, {"Authorization": f"Bearer {TOKEN}"}),
        ("GET", "/readyz", None, {}),
        ("GET", "/v2/rollouts/0123/nodes/n1", None, admin),
    ):
        server.ask(method, path, text, headers)
    return [PASSWORD, KEY, TOKEN, BROKER, HOOK, jwt, jwt.rpartition(".")[2], secret, "wrong-but-nearly", "hunter2",
            "signature-of-a-link", basic("admin").partition(" ")[2]]  # fmt: skip


def test_no_secret_is_in_any_line(session):
    _, text, secrets = session
    assert [each for each in secrets if each in text] == []


def test_each_request_has_one_line(session):
    lines, _, _ = session
    access = [each for each in lines if each["logger"] == "modfleet.access"]
    assert len(access) == 13
    assert all({"method", "route", "status", "seconds", "time", "level"} <= each.keys() for each in access)
    posted = next(each for each in access if (each["method"], each["route"]) == ("POST", "/v1/users"))
    assert (posted["actor"], posted["status"]) == ("admin", 200)
    assert len(posted["request_id"]) == 32
    assert posted["position"] > 1


def test_a_line_names_the_rollout_and_the_node(session):
    lines, _, _ = session
    (line,) = [each for each in lines if each.get("rollout")]
    assert (line["rollout"], line["node"], line["status"]) == ("0123", "n1", 404)
