"""The how-tos about adoptions and removals, as pasted, on a fleet whose modules no client has called."""

import re
import zipfile

import pytest

from tests.e2e.test_docs import paste
from tests.fleet import running_fleet, sample
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def cluster():
    """Nodes of this file's own: on the shared ones, other tests' calls of the last 10 minutes forbid a removal."""
    with running_fleet() as fleet:
        yield fleet


def foreign_modules(fleet):
    return [fleet.node(each)["foreign_modules"] for each in fleet.names]


def test_adopt_and_remove_what_servers_have_loaded(fleet, tmp_path):
    package = sample(tmp_path, 31000)
    package.rename(tmp_path / "greet-1.zip")
    with zipfile.ZipFile(tmp_path / "greet-1.zip") as archive:
        (module,) = [each for each in archive.namelist() if each.endswith(".so")]
        foreign = fleet.folder / "foreign.so"
        foreign.write_bytes(archive.read(module))
        foreign.chmod(0o755)
    for name in fleet.names:
        fleet.valkey(name, "MODULE", "LOAD", str(foreign))
    wait_for(lambda: all(foreign_modules(fleet)))
    user = {"MODFLEET_USER": "admin"}
    said = paste(fleet, "howto/adopt.md", "adopted", folder=tmp_path, **user)
    assert re.search(r"greet +31000 +3 +0", said)
    fleet.end_of(re.findall(r"rollout watch ([0-9a-f]{32})", said)[-1])
    wait_for(lambda: foreign_modules(fleet) == [[], [], []])
    removed = paste(
        fleet, "howto/remove-a-module.md", "removed", placeholders={"MODULE": "greet", "VERSION": "31000"}, **user
    )
    assert "plan_hash" in removed
    assert fleet.end_of(re.findall(r"rollout ([0-9a-f]{32})", removed)[-1])["phase"] == "succeeded"
    assert fleet.greetings() == ["", "", ""]
