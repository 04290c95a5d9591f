"""A small fleet, made by the services, and browsers of those who look at it."""

import io
import json
import platform
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from artifacts_app.services import Upload, add_build
from artifacts_app.storage import Spool
from eventstore import acting_as, person
from modules_app.services import register_module
from rollout.delivery import ingestion
from rollout.domain.request import AT_ONCE, RolloutRequest
from rollout.messages import (
    Activation,
    Heartbeat,
    InstalledModule,
    Inventory,
    NodeProfile,
    Phase,
    Reason,
    Report,
    to_json,
)
from rollout.models import Operation
from rollout.process.advance import advance
from rollout.services.start import start_rollout
from tests.plugins.cast import PASSWORD
from tests.recorded_fleet import ALONE, know

PLATFORM = f"linux/{platform.machine()}"
#: What a node may say, and a page must not run.
EVIL = "<script>alert('node')</script>"


def described(name: str, version: int) -> dict[str, Any]:
    return {
        "module_name": name,
        "version": version,
        "semantic_version": "1.2.3",
        "display_name": "Greet",
        "command_line_args": "",
        "capabilities": [],
        "min_redis_version": "7.2",
        "commands": [{"command_name": "greet.hello", "command_arity": 1, "flags": ["readonly"]}],
    }


def upload(shared_object: bytes, name: str, version: int) -> Upload:
    """Store a package of the module."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("greet.so", shared_object)
        archive.writestr("module.json", json.dumps(described(name, version)))
    with Spool() as spool:
        spool.write(out.getvalue())
        return add_build(spool)


def heartbeat(name: str, *modules: InstalledModule, sequence: int = 1) -> None:
    """The node says that it is there, and what it has."""
    profile = NodeProfile(
        platform=PLATFORM, server="valkey", server_version="9.1.2", role="master", labels={"zone": EVIL}
    )
    know(name, platform=PLATFORM)
    inventory = Inventory(sequence=sequence, modules=modules)
    said = Heartbeat(
        node=name, hello=True, interval_seconds=60, profile=profile, inventory=inventory, facts=ALONE, doctor=()
    )
    ingestion.record_heartbeats([to_json(said)])


def report(uid: str, node: str, phase: Phase, *, reason: Reason | None = None, message: str = "") -> None:
    """The node ends its operation of the rollout."""
    row = Operation.objects.get(rollout=uid, node=node)
    inventory = None
    if phase == Phase.SUCCEEDED:
        has = InstalledModule(
            module_name=row.module_name, version=row.version, content_sha256=row.content_sha256, loaded=True
        )
        inventory = Inventory(sequence=2, modules=(has,))
    said = Report(
        rollout=uid,
        node=node,
        module_name=row.module_name,
        generation=row.generation,
        attempt=row.attempt,
        phase=phase,
        reason=reason,
        message=message,
        seconds=0.5,
        inventory=inventory,
    )
    ingestion.record_reports([to_json(said)])


class Fleet:
    """Three nodes; greet 2 is being rolled out: it is on node-a, failed on node-b, and node-c has yet to answer."""

    def __init__(self, shared_object: bytes) -> None:
        self.shared_object = shared_object
        self.nodes = ["node-a", "node-b", "node-c"]
        self.module = register_module(described("greet", 2))
        with acting_as(person("olivia")):
            upload(shared_object, "greet", 2)
        for name in self.nodes:
            heartbeat(name)
        with acting_as(person("olivia")):
            self.rollout = self.start()
        report(self.rollout, "node-a", Phase.SUCCEEDED)
        report(self.rollout, "node-b", Phase.FAILED, reason=Reason.LOAD_FAILED, message=EVIL)

    def start(self, **changes: Any) -> str:
        asked: dict[str, Any] = {
            "action": "install",
            "module_name": "greet",
            "version": 2,
            "activation": Activation.LOAD,
        }
        uid = start_rollout(RolloutRequest(**asked, strategy=AT_ONCE, **changes))
        advance(uid)
        return uid

    def end(self) -> None:
        """node-c answers too."""
        report(self.rollout, "node-c", Phase.SUCCEEDED)


@pytest.fixture
def fleet(db: None, storage: Path, shared_object: bytes) -> Fleet:
    return Fleet(shared_object)


def signed_in(user: User) -> Client:
    client = Client()
    assert client.login(username=user.username, password=PASSWORD)
    return client


@pytest.fixture
def admin(alice: User) -> Client:
    """alice's browser: she may press everything."""
    return signed_in(alice)


@pytest.fixture
def viewer(bob: User) -> Client:
    """bob's browser: he may look at everything."""
    return signed_in(bob)


@pytest.fixture
def press() -> Callable[..., Any]:
    """Press a button on a row's page, and confirm; the page that comes in the end."""

    def pressed(browser: Client, model: str, action: str, *keys: str, confirm: bool = True) -> Any:
        form = {"action": action, "_selected_action": keys, **({"_confirmed": "1"} if confirm else {})}
        return browser.post(f"/admin/{model}/", form, follow=True)

    return pressed


def text(response: Any) -> str:
    shown: str = response.content.decode()
    return shown


def messages(response: Any) -> list[str]:
    return [str(each) for each in response.context["messages"]]
