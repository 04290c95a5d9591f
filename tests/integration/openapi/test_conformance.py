"""The live server answers as its documents say, to whatever they allow and to what they do not: schemathesis makes it up.

`MODFLEET_CONFORMANCE_EXAMPLES` is how many requests are made up for an operation, beside those at its borders.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest
import schemathesis
from schemathesis import engine
from schemathesis.engine.events import EngineEvent, FatalError, NonFatalError, ScenarioFinished

from tests.plugins.cast import PASSWORD, basic
from tests.plugins.server import Server, serving

DOCUMENT = Path("docs/reference/openapi.yaml")
EXAMPLES = int(os.environ.get("MODFLEET_CONFORMANCE_EXAMPLES", "1"))

#: Four nodes, one of them the local one; a rollout that has ended and one that goes on; a viewer, and whoever may be
#: changed and deleted. Prints the uids of both rollouts and of that account.
RECORD = f"""
import django; django.setup()
from accounts.roles import Role
from accounts.services import create_user
from rollout.advance import advance
from tests import recorded_fleet as fleet
fleet.fleet(3)
fleet.join("local", api_hosts=("127.0.0.1",))
fleet.upload(version=2)
ended = fleet.start(nodes=("n0000", "n0001"))
fleet.say(ended, "n0000"); fleet.say(ended, "n0001")
advance(ended)
under_way = fleet.start(version=2, nodes=("n0002",))
for name in ("bob", "dave"):
    user = create_user(name=name, email=name + "@example.com", password={PASSWORD!r}, role=Role.CLUSTER_VIEWER, by=None)
print(ended, under_way, user.uid)
"""

#: Operations with rules that no schema can say, so that not all that keeps to it is accepted; the reason beside each.
BEYOND_SCHEMA = {
    "POST /v1/users/authorize": "a name and a password come together",
    "POST /v1/users": "a password has to be strong",
    "PUT /v1/users/{uid}": "a password has to be strong",
    "POST /v2/modules/user-defined": "commands are checked one by one",
    "POST /v2/modules/user-defined/artifacts": "a package is a zip of an ELF file and its module.json",
    "POST /v2/local/modules/user-defined/artifacts": "a package is a zip of an ELF file and its module.json",
    "POST /v2/modules": "a package is a zip of an ELF file and its module.json",
    "POST /v2/rollouts": "nodes and selector exclude each other, and must name nodes that are there",
    "POST /v2/rollouts/plan": "nodes and selector exclude each other, and must name nodes that are there",
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
    """What is there, for requests that are to find something."""

    def __init__(self, ended: str, under_way: str, user: str) -> None:
        self.ended, self.under_way, self.user = ended, under_way, int(user)

    def aim(self, case: schemathesis.Case) -> None:
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
        }
        case.path_parameters.update({name: aimed[name] for name in case.path_parameters})

    def _uid(self, case: schemathesis.Case) -> str | int:
        if case.path.startswith("/v1/users"):
            return self.user
        return self.ended if case.method == "GET" else self.under_way


@pytest.fixture(scope="module")
def conforming(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "MODFLEET_DATABASE_URL"},
        "DJANGO_SETTINGS_MODULE": "tests.weak_passwords",
        "MODFLEET_DATA_DIR": str(data_dir),
        "MODFLEET_ADMIN_PASSWORD": PASSWORD,
        "MODFLEET_ALLOWED_HOSTS": "127.0.0.1",
        "MODFLEET_LOCAL_WAIT_SECONDS": "0.1",  # no agent is there to answer
        "MODFLEET_FAILED_LOGINS_PER_MINUTE": "0",  # made up logins are wrong, and each asks for the same
        "MODFLEET_FAILED_LOGINS_PER_ADDRESS_PER_MINUTE": "0",
        "MODFLEET_REQUESTS_PER_MINUTE": "0",
        "MODFLEET_UPLOADS_PER_MINUTE": "0",
    }
    for command in (["manage.py", "migrate", "--verbosity=0"], ["manage.py", "bootstrap"]):
        subprocess.run([sys.executable, *command], env=environment, check=True, stdout=subprocess.DEVNULL)
    recorded = subprocess.run(
        [sys.executable, "-c", RECORD], env=environment, check=True, capture_output=True, text=True
    )
    with serving(environment, data_dir) as served, aiming_at(Known(*recorded.stdout.split())):
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
    return json.loads(body)["access_token"]


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
