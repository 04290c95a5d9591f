"""Clients of the API against a whole cluster: uploads, the vendor's tools, roles, many who wait."""

import json
import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import httpx
import pytest

from modfleet.packing.write import pack
from modfleet.sample import SOURCE, compile_module, sample_metadata
from tests.fleet import ARTIFACTS, PASSWORD, PAUSE, ROLLOUTS
from tests.waiting import PATIENCE, wait_for

LOCAL = "/v2/local/modules/user-defined/artifacts"


def test_local_upload_lands_on_the_node_that_the_host_names(fleet, package):
    version, path = package()
    host = {"Host": f"node-2.localhost:{urlsplit(fleet.url).port}"}
    answer = fleet.upload(path, LOCAL, headers=host)
    assert (answer.status_code, answer.json()) == (200, {})
    assert fleet.files("node-2") == ["greet", f"greet/{version}", *_inside(version)]
    assert fleet.files("node-1") == fleet.files("node-3") == []
    assert [each["version"] for each in fleet.get(LOCAL, headers=host)] == [version]
    assert fleet.get(LOCAL) == []
    assert fleet.api.delete(f"{LOCAL}/greet/{version}", headers=host).status_code == 200
    assert fleet.files("node-2") == []


def _inside(version):
    return [f"greet/{version}/{name}" for name in ("greet.so", "module.json")]


def test_local_upload_without_such_a_host_is_the_first_node(fleet, package):
    version, path = package()
    assert fleet.upload(path, LOCAL).status_code == 200
    assert [each["version"] for each in fleet.get(LOCAL)] == [version]
    assert fleet.files("node-1") == ["greet", f"greet/{version}", *_inside(version)]


def test_truncated_module_reaches_no_server(fleet, tmp_path):
    module = compile_module(SOURCE, tmp_path / "greet.so", defines={"GREET_VERSION": "30000"})
    content = module.read_bytes()
    module.write_bytes(content[: len(content) // 2])
    package = pack(module, sample_metadata(module, version=30000), tmp_path / "cut.zip")
    for path in (ARTIFACTS, LOCAL, "/v2/modules"):
        assert fleet.upload(package, path).status_code == 400
    assert fleet.api.get(f"{ARTIFACTS}/greet/30000").status_code == 404
    assert fleet.greetings() == ["", "", ""]


def test_vendors_upload_and_deletion_are_polled_to_their_ends(fleet, package):
    version, path = package()
    module = fleet.upload(path, "/v2/modules").json()
    assert _status(fleet, module["action_uid"]) == "completed"
    assert [fleet.files(name)[1] for name in fleet.names] == [f"greet/{version}"] * 3
    assert fleet.get(f"/v1/modules/{module['uid']}")["module_name"] == "greet"
    gone = fleet.api.delete(f"/v2/modules/{module['uid']}").json()
    assert _status(fleet, gone["action_uid"]) == "completed"
    assert [fleet.files(name) for name in fleet.names] == [[], [], []]
    assert fleet.api.get(f"/v1/modules/{module['uid']}").status_code == 404
    assert fleet.api.get(f"{ARTIFACTS}/greet/{version}").status_code == 404


SCRIPT = """
set -eu
curl -sk -u "$USER_AND_PASSWORD" -F "module=@$PACKAGE" "$URL/v1/modules" > module.json
uid=$("$PYTHON" -c 'import json; print(json.load(open("module.json"))["uid"])')
while [ "$(curl -sk -o /dev/null -w '%{http_code}' -u "$USER_AND_PASSWORD" "$URL/v1/modules/$uid")" != "200" ]; do sleep 1; done
curl -sk -L -u "$USER_AND_PASSWORD" --location-trusted -H "Content-Type: application/json" -X GET "$URL/v1/nodes" > nodes.json
for node in $("$PYTHON" -c 'import json; print(*(each["uid"] for each in json.load(open("nodes.json"))))'); do
  curl -sk -u "$USER_AND_PASSWORD" "$URL/v1/nodes/$node"; echo
done
curl -sk -u "$USER_AND_PASSWORD" -F "module=@$PACKAGE" "$URL/v1/modules" > again.json
"""


def test_script_that_uploads_by_v1_and_looks_at_each_node(fleet, package, tmp_path):
    """As scripts in public repositories have it: curl, multipart, the module object, a loop until it is there."""
    version, path = package()
    words = {"USER_AND_PASSWORD": f"admin:{PASSWORD}", "PACKAGE": str(path), "URL": fleet.url, "PYTHON": sys.executable}
    done = subprocess.run(
        ["sh", "-c", SCRIPT], cwd=tmp_path, env={**os.environ, **words}, check=True, capture_output=True, text=True
    )
    nodes = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(each["name"] for each in nodes) == sorted(fleet.names)
    assert {each["status"] for each in nodes} == {"active"}
    module = json.loads((tmp_path / "module.json").read_text())
    assert (module["module_name"], module["version"]) == ("greet", version)
    assert "action_uid" not in module
    assert json.loads((tmp_path / "again.json").read_text()) == module
    for action in fleet.get("/v1/actions")["actions"]:
        assert _status(fleet, action["action_uid"]) == "completed"
    assert [fleet.files(name)[1] for name in fleet.names] == [f"greet/{version}"] * 3
    gone = fleet.api.delete(f"/v1/modules/{module['uid']}").json()
    assert _status(fleet, gone["action_uid"]) == "completed"


def test_upload_with_an_agent_away_ends_and_the_module_can_be_deleted(fleet, package):
    version, path = package()
    fleet.up.send("node-3-agent", signal.SIGSTOP)
    try:
        _upload_and_delete_without_node_3(fleet, version, path)
    finally:
        fleet.up.send("node-3-agent", signal.SIGCONT)


def _upload_and_delete_without_node_3(fleet, version, path):
    fleet.wait_for_phase("node-3", "offline")
    module = fleet.upload(path, "/v2/modules").json()
    assert _status(fleet, module["action_uid"]) == "completed"
    assert "node-3: node-3 was offline" in fleet.get(f"/v1/actions/{module['action_uid']}")["error_message"]
    gone = fleet.api.delete(f"/v2/modules/{module['uid']}").json()
    assert _status(fleet, gone["action_uid"]) == "completed"
    assert fleet.api.get(f"{ARTIFACTS}/greet/{version}").status_code == 404


def _status(fleet, uid):
    """Status of an action that has ended."""
    final = {"completed", "failed", "cancelled"}
    return wait_for(lambda: (status := fleet.get(f"/v1/actions/{uid}")["status"]) in final and status, pause=PAUSE)


@pytest.fixture
def viewer(fleet):
    body = {"name": "vera", "email": "vera@example.com", "password": PASSWORD, "role": "cluster_viewer"}
    user = fleet.post("/v1/users", body, status=200)
    with fleet.client("vera", PASSWORD) as client:
        yield client
    assert fleet.api.delete(f"/v1/users/{user['uid']}").status_code == 200


def test_viewer_reads_and_does_not_write(fleet, viewer, uploaded):
    version = uploaded()
    uid = fleet.carry_out(version)["uid"]
    assert viewer.get(f"{ROLLOUTS}/{uid}").json()["phase"] == "succeeded"
    body = {"action": "remove", "module_name": "greet", "version": version}
    assert viewer.post(ROLLOUTS, json=body).status_code == 403
    assert viewer.delete(f"{ARTIFACTS}/greet/{version}").status_code == 403
    assert all(each.startswith("Hello") for each in fleet.greetings())


def test_upload_that_expects_a_continue_gets_one(fleet, package):
    _, path = package()
    request = fleet.api.build_request("POST", ARTIFACTS, files={"module": (path.name, path.read_bytes())})
    request.headers["Authorization"] = httpx.BasicAuth("admin", PASSWORD)._auth_header
    body = request.read()
    request.headers["Expect"] = "100-continue"
    with _sent(fleet, f"POST {ARTIFACTS} HTTP/1.1", request.headers) as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(body)
        assert client.recv(1000).startswith(b"HTTP/1.1 201 Created")


def _sent(fleet, line, headers):
    """A connection that has sent the head of a request."""
    address = urlsplit(fleet.url)
    client = socket.create_connection((address.hostname, address.port), timeout=PATIENCE)
    head = [line, *(f"{name}: {value}" for name, value in headers.items())]
    client.sendall("\r\n".join([*head, "", ""]).encode())
    return client


def test_many_who_wait_keep_nobody_else_waiting(fleet, uploaded):
    version = uploaded()
    fleet.up.send("node-3-agent", signal.SIGSTOP)
    uid = fleet.start(version)
    wait_for(lambda: fleet.phases(uid)["node-1"] == fleet.phases(uid)["node-2"] == "succeeded", pause=PAUSE)
    headers = {"Host": urlsplit(fleet.url).netloc, "Authorization": httpx.BasicAuth("admin", PASSWORD)._auth_header}
    waiting = [_sent(fleet, f"GET {ROLLOUTS}/{uid}?wait=60 HTTP/1.1", headers) for _ in range(200)]
    try:
        assert fleet.get("/v2/nodes", timeout=10)["results"]
        fleet.up.send("node-3-agent", signal.SIGCONT)
        for client in waiting:
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    finally:
        for client in waiting:
            client.close()
    assert fleet.end_of(uid)["phase"] == "succeeded"


@pytest.mark.parametrize("path", ["/docs", "/schema", "/admin/login/"])
def test_what_is_printed_can_be_opened(fleet, path):
    assert httpx.get(fleet.url + path).status_code == 200


def test_agents_log_no_link_to_a_package(fleet, uploaded):
    fleet.carry_out(uploaded())
    logs = "".join(each.read_text() for each in (fleet.folder / "logs").glob("*-agent.log"))
    assert "modfleet.execute" in logs
    assert "/v2/downloads/" not in logs
