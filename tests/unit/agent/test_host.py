"""What a heartbeat says about the machine: nodes of one machine are not changed at the same time."""

from rollout.agent.node.node import Node, read_host_id
from rollout.agent.settings import settings_from


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
