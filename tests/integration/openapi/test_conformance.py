"""The live server answers as its documents say, to whatever they allow and to what they do not: schemathesis makes it up.

`MODFLEET_CONFORMANCE_EXAMPLES` is how many requests are made up for an operation, beside those at its borders.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.test import override_settings
from schemathesis import engine
from schemathesis.engine.events import EngineEvent, FatalError, NonFatalError, ScenarioFinished

from accounts.models import User
from accounts.roles import Role
from accounts.services import create_user
from rollout.process.advance import advance
from rollout.services.enrolment import create_join_token
from rollout.services.ignored_replicas import ignore_replica
from tests import recorded_fleet as fleet
from tests.environment import number_in
from tests.plugins.cast import PASSWORD, basic
from tests.plugins.server import Server, bootstrapped, serving
from tests.weak_passwords import PASSWORD_HASHERS

DOCUMENT = Path("docs/reference/openapi.yaml")
EXAMPLES = number_in("MODFLEET_CONFORMANCE_EXAMPLES", 1)

#: Operations with rules that no schema can say, so that not all that keeps to it is accepted; the reason beside each.
BEYOND_SCHEMA = {
    "POST /v1/users/authorize": "a name and a password come together",
    "POST /v1/users": "a password has to be strong",
    "PUT /v1/users/{uid}": "a password has to be strong",
    "POST /v2/modules/user-defined": "commands are checked one by one",
    "POST /v2/modules/user-defined/artifacts": "a package is a zip of an ELF file and its module.json",
    "POST /v2/local/modules/user-defined/artifacts": "a package is a zip of an ELF file and its module.json",
    "POST /v1/modules": "a package is a zip of an ELF file and its module.json",
    "POST /v2/modules": "a package is a zip of an ELF file and its module.json",
    "POST /v2/rollouts": "nodes and selector exclude each other, and must name nodes that are there",
    "POST /v2/rollouts/plan": "nodes and selector exclude each other, and must name nodes that are there",
    "POST /v2/join-tokens": "node and pattern exclude each other, and a pattern has a *",
    "POST /v2/enrolment": "only a token that was created is accepted, with a proof of the key",
    "POST /v2/enrolment/keys": "only a message that a node has signed is accepted",
    "POST /v2/enrolment/holds": "only a message that a node has signed is accepted",
    "POST /v2/nodes/{name}/accept": "only the key of the node is accepted",
    "PATCH /v2/nodes/{name}": "at least one field is needed",
    "POST /v2/webhooks": "a URL needs a host, a secret has to be base64, a type has to be one of the events'",
    "PATCH /v2/webhooks/{uid}": "a URL needs a host, a secret has to be base64, a type has to be one of the events'",
}

CONFIG = {
    "generation": {"deterministic": True, "database": "none", "max-examples": EXAMPLES},
    # A node that does not answer is no fault of the server: its 503 is checked against the documents like all others.
    "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]}},
    "operations": [
        *({"include-name": name, "checks": {"positive_data_acceptance": {"enabled": False}}} for name in BEYOND_SCHEMA),
        # A header that is no ASCII never arrives: the server that carries the application leaves it out.
        {"include-name": "GET /v2/rollouts/{uid}/events", "checks": {"negative_data_rejection": {"enabled": False}}},
    ],
}
#: Of schemathesis. The stateful one guesses its links; the tests of the rollouts play whole stories.
PHASES = {
    "admin": {"stateful": {"enabled": False}},
    # Whoever may do little is refused before what is at the borders of a request matters.
    "bob": {"stateful": {"enabled": False}, "coverage": {"enabled": False}},
}


class Known:
    """Four nodes, one of them the local one; a rollout that has ended and one that goes on; a viewer, and an account
    that may be changed and deleted: for requests that are to find something."""

    def __init__(self) -> None:
        fleet.fleet(3)
        fleet.join("local", api_hosts=("127.0.0.1",))
        fleet.upload(version=2)
        self.ended = fleet.start(nodes=("n0000", "n0001"))
        fleet.say(self.ended, "n0000")
        fleet.say(self.ended, "n0001")
        advance(self.ended)
        self.under_way = fleet.start(version=2, nodes=("n0002",))
        ignore_replica("10.0.0.9:6379", reason="A copy for reports")
        self.token = create_join_token(node="n0003", labels={}, expires_in_seconds=3600)
        self.user = [_viewer(name).uid for name in ("bob", "dave")][-1]

    def aim(self, case: "schemathesis.Case[Any]") -> None:
        """Let a request that keeps to the documents be about something that is there."""
        if case.path.endswith("/{uid}/events"):
            case.path_parameters["uid"] = self.ended  # what goes on is streamed for as long as it does
        if case.meta is None or not case.meta.generation.mode.is_positive:
            return
        case.query.pop("cursor", None)  # it is signed: nobody can make one up
        if "as_of" in case.query:
            case.query["as_of"] = "1"  # the log has no position that is greater than its newest
            case.query.pop("wait", None)  # what has been does not change
        aimed = {
            "module_name": "greet",
            "version": "1",
            "name": "n0002" if case.path.startswith("/v2/rollouts") else "n0001",
            "uid": self._uid(case),
            "token": self.token,
            "address": "10.0.0.9:6379",
        }
        case.path_parameters.update({name: aimed[name] for name in case.path_parameters})

    def _uid(self, case: "schemathesis.Case[Any]") -> str | int:
        if case.path.startswith("/v1/users"):
            return self.user
        return self.ended if case.method == "GET" else self.under_way


def _viewer(name: str) -> User:
    email = f"{name}@example.com"
    with override_settings(PASSWORD_HASHERS=PASSWORD_HASHERS):
        return create_user(name=name, email=email, password=PASSWORD, role=Role.CLUSTER_VIEWER, by=None)


@pytest.fixture(scope="module")
def conforming(django_db_setup, django_db_blocker, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    settings = {
        "MODFLEET_LOCAL_WAIT_SECONDS": "0.1",  # no agent is there to answer
        "MODFLEET_FAILED_LOGINS_PER_MINUTE": "0",  # made up logins are wrong, and each asks for the same
        "MODFLEET_FAILED_LOGINS_PER_ADDRESS_PER_MINUTE": "0",
        "MODFLEET_REQUESTS_PER_MINUTE": "0",
        "MODFLEET_UPLOADS_PER_MINUTE": "0",
    }
    with (
        django_db_blocker.unblock(),
        bootstrapped(data_dir) as environment,
        aiming_at(Known()),
        serving(environment | settings, data_dir) as served,
    ):
        yield served


@contextmanager
def aiming_at(known: Known) -> Iterator[None]:
    # Such a hook is for all schemas or none.
    @schemathesis.hook
    def before_call(context, case, kwargs):
        known.aim(case)

    try:
        yield
    finally:
        schemathesis.hooks.unregister(before_call)


@pytest.mark.slow
@pytest.mark.timeout(600)  # thousands of requests
@pytest.mark.parametrize("login", PHASES)
def test_every_operation_answers_as_documented(conforming, login):
    config = {
        **CONFIG,
        "base-url": f"http://127.0.0.1:{conforming.port}",
        "headers": {"Authorization": f"Bearer {token_of(conforming, login)}"},
        "phases": PHASES[login],
    }
    schema = schemathesis.openapi.from_path(DOCUMENT, config=schemathesis.Config.from_dict(config))
    found = list(failures(engine.from_schema(schema).execute()))
    assert not found, "\n\n".join(found)


def token_of(server: Server, login: str) -> str:
    """A password would be hashed for each request that has a wrong one."""
    _, body = server.ask(
        "POST", "/v1/users/authorize", "{}", {"Content-Type": "application/json", "Authorization": basic(login)}
    )
    token: str = json.loads(body)["access_token"]
    return token


def failures(events: Iterable[EngineEvent]) -> Iterator[str]:
    """What was not as documented, each with the request that showed it."""
    for event in events:
        match event:
            case ScenarioFinished():
                yield from _failures_of(event)
            case NonFatalError() | FatalError():
                yield str(event)


def _failures_of(scenario: ScenarioFinished) -> Iterator[str]:
    for check in chain.from_iterable(scenario.recorder.checks.values()):
        if check.failure_info is not None:
            failure = check.failure_info.failure
            yield f"{scenario.recorder.label}: {failure.title}: {failure.message} {check.failure_info.code_sample}"
