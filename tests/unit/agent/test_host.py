"""What a heartbeat says about the machine: nodes of one machine are not changed at the same time."""

import subprocess
import sys

from rollout.agent.inspection.host import read_host_id
from rollout.agent.inspection.sockets import network_id
from rollout.agent.node.node import Node
from rollout.agent.settings import settings_from
from tests.fleet import ROOT


def host_of(folder, **more):
    """The host in a heartbeat of a node with these settings."""
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": "http://127.0.0.1:1",
        "MODFLEET_SERVER_URL": f"unix://{folder}/none.sock",
        "MODFLEET_MODULES_DIR": str(folder / "modules"),
        "MODFLEET_JOURNAL_DIR": str(folder / "journal"),
    }
    return Node(settings_from(environ | more)).heartbeat(hello=True).host


def test_nodes_of_one_machine_name_the_same_one(tmp_path):
    assert host_of(tmp_path / "a") == host_of(tmp_path / "b") != ""


def test_a_setting_names_it(tmp_path):
    one, other = (host_of(tmp_path, MODFLEET_HOST_ID=each) for each in ("h" * 300, "h" * 301))
    assert len({one, other, host_of(tmp_path)}) == 3
    assert len(one) <= 64


def test_it_is_the_machines_id_and_its_name(tmp_path):
    names = [tmp_path / each for each in ("machine-id", "hostname")]
    for path in names:
        path.write_text(f"{path.name}\n")
    assert read_host_id([*names, tmp_path / "none"]) == "machine-id\0hostname"


def test_processes_in_one_network_namespace_name_the_same_one(tmp_path):
    assert network_id() == network_id() != ""
    assert network_id(tmp_path) == ""


def test_another_network_namespace_has_another_id():
    words = [sys.executable, "-c", "from rollout.agent.inspection.sockets import network_id; print(network_id())"]
    done = subprocess.run(["unshare", "--user", "--net", *words], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() not in {"", network_id()}
