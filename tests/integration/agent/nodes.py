"""A node in a directory of its own, as `modfleet agent install` makes them."""

from pathlib import Path
from typing import Any

from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from tests.integration.agent.conftest import Site


def started_node(root: Path, server: Any, shelf: Any, owner: str) -> Site:
    """Start the server and an agent whose lines have this owner."""
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": shelf.url,
        "MODFLEET_SERVER_URL": server.url,
        "MODFLEET_MODULES_DIR": str(root / "modules"),
        "MODFLEET_JOURNAL_DIR": str(root / "journal"),
        "MODFLEET_PERSISTENCE": owner,
    }
    server.start()
    made = Site(root, server, shelf, Runner(settings_from(environ)), environ)
    made.runner.recover()
    return made
