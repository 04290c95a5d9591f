"""Clients that send slowly, or nothing, or take nothing: they cost connections, and everyone else is answered."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

import pytest
from django.core import signing

from tests.plugins.cast import PASSWORD, basic
from tests.plugins.server import serving
from tests.plugins.slow_clients import head, slow_clients
from tests.ports import free_port
from tests.waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("many_files")]

#: As many as stopped a server with 512 threads, and more than three times as many as this one has.
CLIENTS = 560
THREADS = 160
KEY = "key-of-the-attacked-server-0123456789-0123456789"
ADMIN = {"Authorization": basic("admin")}
JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
LONG = "Content-Length: 100000"
AUTHORIZATION = f"Authorization: {ADMIN['Authorization']}"
AUTHORIZE = [
    head("POST", "/v1/users/authorize", JSON, LONG),
    head("POST", "/v1/users/authorize", JSON, "Transfer-Encoding: chunked") + b"186a0\r\n",
    head("POST", "/v1/users/authorize", JSON, LONG, "Expect: 100-continue"),
]
REFUSED = {
    401: head("POST", "/v2/modules/user-defined/artifacts", LONG),
    404: head("POST", "/nothing", LONG),
    405: head("POST", "/v1/cluster", LONG),
    413: head("POST", "/v1/users", JSON, "Content-Length: 9000000", AUTHORIZATION),
    415: head("POST", "/v1/users", LONG, AUTHORIZATION),
    403: head("POST", "/admin/login/", FORM, LONG),
}


#: The node n1 joined before messages were signed, so its links need no proof.
KNOWN = "from tests.recorded_fleet import know; know('n1')"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """The API's server with its probes on a port of their own, and deadlines that a test can wait for."""
    folder = tmp_path_factory.mktemp("attacked")
    probes = free_port()
    environ = {name: value for name, value in os.environ.items() if name != "MODFLEET_DATABASE_URL"} | {
        "MODFLEET_DATA_DIR": str(folder),
        "MODFLEET_ADMIN_PASSWORD": PASSWORD,
        "MODFLEET_SECRET_KEY": KEY,
        "MODFLEET_ALLOWED_HOSTS": "127.0.0.1",
        "MODFLEET_THREADS": str(THREADS),
        "MODFLEET_PROBE_ADDRESS": f"127.0.0.1:{probes}",
        "MODFLEET_ANONYMOUS_BODY_SECONDS": "2",
        "MODFLEET_SLOW_CLIENT_SECONDS": "2",
        "MODFLEET_BODIES_PER_USER": "8",
    }
    for command in (["migrate", "--verbosity=0"], ["bootstrap"]):
        subprocess.run([sys.executable, "manage.py", *command], env=environ, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "manage.py", "shell", "--command", KNOWN], env=environ, check=True)
    with serving(environ, folder, "--http1-header-read-timeout", "3000") as server:
        yield replace(server, probes=probes)


def probe(server, path="/livez"):
    """The status that the probes' listener answers, and after how many seconds."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.probes, timeout=PATIENCE)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, time.monotonic() - began


def is_served(server):
    """The probes' listener within a second, the probe on the other one, a read with a password, a login by a body."""
    wait_for(lambda: probe(server)[1] < 1)  # in one of a few tries: the machine may have other work
    assert server.ask("GET", "/livez")[0].status == 200
    assert server.ask("GET", "/v2/nodes", headers=ADMIN)[0].status == 200
    body = json.dumps({"username": "admin", "password": PASSWORD})
    response, _ = server.ask("POST", "/v1/users/authorize", body, {"Content-Type": "application/json"})
    assert response.status == 200


def test_slow_bodies_without_credentials(attacked):
    """Some are waited for, all others are refused at once, and none of them for long."""
    with slow_clients(attacked.port, AUTHORIZE, count=CLIENTS) as clients:
        wait_for(lambda: b"too_many_bodies" in b"".join(list(clients.answers.values())))
        is_served(attacked)
        wait_for(lambda: clients.standing == 0)
    said = b"".join(clients.answers.values())
    assert len(clients.answers) == CLIENTS == said.count(b"too_many_bodies") + said.count(b"body_too_slow")
    assert said.count(b"body_too_slow") >= 32


def test_refusals_do_not_wait_for_the_body(attacked):
    statuses = list(REFUSED)
    with slow_clients(attacked.port, list(REFUSED.values()), count=90) as clients:
        is_served(attacked)
        wait_for(lambda: len(clients.answers) == 90)
        wait_for(lambda: clients.standing == 0)
    for number, answer in clients.answers.items():
        expected = {statuses[number % len(statuses)], 429, 408}  # the reader of 413 and of the form may be one too many
        assert int(answer[9:12]) in expected, answer


def test_a_slow_body_with_good_credentials(attacked):
    slow = head("POST", "/v2/rollouts", JSON, LONG, AUTHORIZATION)
    with slow_clients(attacked.port, [slow], count=40) as clients:
        wait_for(lambda: 429 in clients.statuses)
        is_served(attacked)
        wait_for(lambda: clients.standing == 0)
    assert set(clients.statuses) == {408, 429}
    assert len(clients.statuses) == 40
    assert clients.statuses.count(408) >= 8


def test_a_body_that_comes_steadily_is_read(attacked):
    """For longer than a body without credentials may take."""
    body = json.dumps({"name": "x" * 100_000}).encode()

    def steadily():
        began = time.monotonic()
        for start in range(0, len(body), 5_000):  # 3 s in all
            time.sleep(max(0.0, began + start / 33_000 - time.monotonic()))
            yield body[start : start + 5_000]

    headers = {"Content-Length": str(len(body)), "Content-Type": "application/json", **ADMIN}
    response, answer = attacked.ask("PUT", "/v1/cluster", steadily(), headers)
    assert (response.status, json.loads(answer)["error_code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("beginnings", "drop"),
    [([b"", head("GET", "/livez")], b""), ([b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "], b"x")],
    ids=["idle", "headers"],
)
def test_connections_without_a_request(attacked, beginnings, drop):
    with slow_clients(attacked.port, beginnings, count=CLIENTS, drop=drop) as clients:
        is_served(attacked)
        wait_for(lambda: clients.standing == 0)


@contextmanager
def takes_nothing(server, request, *, count):
    """Connections on which a request is sent, and of whose answers nothing is read."""
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in opened:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.connect(("127.0.0.1", server.port))
            each.sendall(request)
        yield opened


def static_file(_server):
    return "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"


def package(server):
    """A node's link to a package of 5 MB."""
    stored = server.data_dir / "artifacts" / "digest"
    stored.mkdir(parents=True, exist_ok=True)
    (stored / "1").write_bytes(b"x" * 5_000_000)
    return f"/v2/downloads/{signing.dumps(['digest/1', 'digest', 'n1'], key=KEY, salt='modfleet.download')}"


@pytest.mark.parametrize("file", [static_file, package])
def test_files_that_nobody_takes(attacked, file):
    """They hold no thread at all."""
    path = file(attacked)
    response, whole = attacked.ask("GET", path)
    assert (response.status, len(whole) > 1_500_000, int(response.headers["Content-Length"])) == (200, True, len(whole))
    with takes_nothing(attacked, head("GET", path), count=2 * THREADS):
        is_served(attacked)
    response, part = attacked.ask("GET", path, headers={"Range": "bytes=5-9"})
    assert (response.status, part) == (200, whole)
    assert attacked.ask("HEAD", path)[1] == b""


@pytest.mark.parametrize(
    ("request_line", "status"),
    [(b"GET /v2/nodes HTTP/1.1", 404), (b"POST /livez HTTP/1.1", 405), (b"GET /readyz HTTP/1.1", 503), (b"x", 404)],
)
def test_the_probes_listener_answers_nothing_else(attacked, request_line, status):
    with socket.create_connection(("127.0.0.1", attacked.probes), timeout=PATIENCE) as connection:
        connection.sendall(request_line + b"\r\nAuthorization: " + basic("admin").encode() + b"\r\n\r\n")
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 %d " % status), received


def test_the_probes_listener_has_slow_clients_too(attacked):
    with slow_clients(attacked.probes, [b"GET /livez HTTP/1.1\r\nX-Slow: "], count=90, drop=b"x") as clients:
        assert probe(attacked)[0] == 200
        wait_for(lambda: clients.standing == 0)


def test_a_probe_address_that_is_taken_is_named(attacked, tmp_path):
    environ = {**os.environ, "MODFLEET_DATA_DIR": str(tmp_path), "MODFLEET_PROBE_ADDRESS": f"127.0.0.1:{attacked.port}"}
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(free_port())]
    done = subprocess.run(
        [*command, "config.asgi:application"], env=environ, capture_output=True, text=True, timeout=PATIENCE
    )
    assert f"MODFLEET_PROBE_ADDRESS=127.0.0.1:{attacked.port}" in done.stdout + done.stderr
    assert done.returncode != 0
