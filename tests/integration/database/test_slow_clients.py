"""Clients that take their time hold no connection: with two in the pool, ten of them leave both to others."""

import socket
from contextlib import ExitStack

import pytest

from tests.crowd import ask_all
from tests.plugins.packages import ARTIFACTS, LOCAL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # it starts a dozen processes

CLIENTS = 10
PACKAGE = """
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from artifacts_app.downloads import download_url
key = default_storage.save("large", ContentFile(bytes(16_000_000)))
print(download_url(key, package_sha256="", node="n0000").partition(":8000")[2])
"""


@pytest.fixture(scope="module")
def api(plane):
    short = {"MODFLEET_DATABASE_POOL_SIZE": "2", "MODFLEET_DATABASE_POOL_SECONDS": "2"}
    with plane.api(**short, NODE_NAME="n0000") as port:
        yield port


@pytest.fixture
def begin(plane, api):
    """Sends a request, and returns its connection once the answer to it has begun with these bytes."""
    with ExitStack() as opened:

        def begun(method, path, *headers, expect, body=b""):
            connection = opened.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(30)
            connection.connect(("127.0.0.1", api))
            lines = [
                f"{method} {path} HTTP/1.1",
                "Host: 127.0.0.1",
                f"Authorization: Bearer {plane.token}",
                *headers,
            ]
            connection.sendall("\r\n".join([*lines, "\r\n"]).encode() + body)
            if expect:
                assert connection.recv(4096).startswith(expect)
            return connection

        yield begun


@pytest.fixture
def others_are_served(plane, api):
    return lambda: ask_all(api, ["/v2/nodes"] * CLIENTS, token=plane.token) == {200: CLIENTS}


def test_readers_of_a_stream(begin, plane, others_are_served):
    for _ in range(CLIENTS):
        begin("GET", f"/v2/rollouts/{plane.rollout}/events", expect=b"HTTP/1.1 200")
    assert others_are_served()


@pytest.mark.parametrize(
    ("path", "kind"),
    [(ARTIFACTS, "multipart/form-data; boundary=b"), ("/v2/rollouts", "application/json")],
)
def test_senders_of_a_body(begin, others_are_served, path, kind):
    headers = [f"Content-Type: {kind}", "Content-Length: 1000", "Expect: 100-continue"]
    for _ in range(CLIENTS):
        begin("POST", path, *headers, expect=b"HTTP/1.1 100")
    assert others_are_served()


def test_readers_of_a_package(begin, plane, others_are_served):
    path = plane.run(PACKAGE).strip()
    for _ in range(CLIENTS):
        begin("GET", path, expect=b"HTTP/1.1 200")
    assert others_are_served()


def test_uploads_that_wait_for_their_node(begin, plane, others_are_served, pack, waits):
    body = b'--b\r\nContent-Disposition: form-data; name="module"; filename="m.zip"\r\n\r\n' + pack() + b"\r\n--b--\r\n"
    headers = ["Content-Type: multipart/form-data; boundary=b", f"Content-Length: {len(body)}"]
    waiting = [begin("POST", LOCAL, *headers, expect=b"", body=body) for _ in range(CLIENTS)]
    local = "from rollout.models import Rollout; print(Rollout.objects.filter(origin='vendor').count())"
    waits(lambda: plane.run(local).strip() == "1")
    assert others_are_served()
    plane.run(
        "from rollout.models import Rollout; from rollout.services.rollouts import abort_rollout;"
        "abort_rollout(Rollout.objects.get(origin='vendor').uid)"
    )
    assert {each.recv(4096).split(b" ")[1] for each in waiting} <= {b"406", b"503"}
