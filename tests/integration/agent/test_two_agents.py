"""Two nodes on one host: what is done to one leaves the other's files, digests, lines and next start unchanged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.messages import Action, Phase
from tests.integration.agent.conftest import SERVERS, Site
from tests.integration.agent.nodes import started_node
from tests.integration.agent.test_persistence import Configured

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]


def started(root: Path, shelf: Any, binary: Path, owner: str) -> Site:
    root.mkdir()
    server = Configured(root / "s", binary=binary, aof="no", more=[f"include {root}/modules/*.conf"])
    return started_node(root, server, shelf, owner)


@pytest.fixture(params=["include", "rewrite"])
def pair(request: pytest.FixtureRequest, short_folder: Path, shelf: Any, binary: Path) -> Iterator[tuple[Site, Site]]:
    one = started(short_folder / "a", shelf, binary, request.param)
    other = started(short_folder / "b", shelf, binary, "include")
    yield one, other
    one.server.kill()
    other.server.kill()


def state(site: Any) -> Any:
    heartbeat = site.runner.heartbeat(hello=False)
    return site.left(), site.include(), site.server.loads(), heartbeat.inventory.modules


def test_a_removal_leaves_the_other_node_unchanged(pair, built):
    one, other = pair
    for site in pair:
        assert site.install(built("greet")).phase is Phase.SUCCEEDED
    before = state(other)
    assert one.remove(built("greet")).phase is Phase.SUCCEEDED
    assert (one.server.loaded(), one.left()) == (set(), [])
    assert state(other) == before
    for site, loaded in ((one, set()), (other, {("greet", 10000)})):
        site.server.restart()
        assert site.server.loaded() == loaded


@pytest.mark.parametrize("point", ["removing", "unload"])
def test_also_if_its_agent_dies_in_between(pair, built, point):
    one, other = pair
    for site in pair:
        site.install(built("greet"))
    before = state(other)
    command = one.command(built("greet"), Action.REMOVE)
    one.run_and_die(command, point)
    assert state(other) == before
    one.restart_agent()
    assert one.run(command).phase is Phase.SUCCEEDED
    assert state(other) == before
    other.server.restart()
    assert other.server.loaded() == {("greet", 10000)}
