"""deploy/nginx.conf and deploy/Caddyfile in front of the API's real server, in the real proxies.

Only one of the two processes runs.
"""

import http.client
import subprocess

import pytest

from tests import proxies
from tests.plugins.cast import basic
from tests.plugins.slow_clients import head, slow_clients
from tests.ports import free_port
from tests.waiting import wait_for

#: Less than the 60 s after which nginx ends such clients without our settings.
ENDED_SECONDS = 45

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("many_files")]

ADMIN = {"Authorization": basic("admin")}
UPLOAD = "/v2/modules/user-defined/artifacts"
#: Of each route that takes a package.
UPLOADS = (UPLOAD, "/v2/local/modules/user-defined/artifacts", "/v2/modules", "/v1/modules")
#: More than nginx lets one address have.
CLIENTS = 300
SLOW = {
    "authorize": head("POST", "/v1/users/authorize", "Content-Type: application/json", "Content-Length: 100000"),
    "upload": head("POST", UPLOAD, "Content-Type: application/zip", "Content-Length: 100000"),
}


def sooner(text):
    """With time limits that a test can wait for."""
    return text.replace(" 10s", " 2s").replace(" 30s", " 5s")


@pytest.fixture(scope="module")
def nginx(server, tmp_path_factory):
    with proxies.nginx(tmp_path_factory.mktemp("nginx"), [server.port, free_port()], sooner) as port:
        yield port


@pytest.fixture(scope="module")
def caddy(server, tmp_path_factory):
    with proxies.caddy(tmp_path_factory.mktemp("caddy"), [server.port, free_port()], sooner) as port:
        yield port


@pytest.fixture(params=["nginx", "caddy"])
def proxy(request):
    return request.getfixturevalue(request.param)


def ask(port, method, path, body=None, headers=ADMIN, source="127.0.0.2"):
    """From an address of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(source, 0))
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_it_works(proxy):
    assert ask(proxy, "GET", "/v2/nodes")[0] == 200
    assert ask(proxy, "POST", UPLOAD, b"x" * 5_000_000, headers={})[0] == 401


@pytest.mark.parametrize("path", UPLOADS)
def test_packages_come_through(proxy, path):
    _, answer = ask(proxy, "POST", path, b"x" * 20_000_000)
    assert b"error_code" in answer  # not the proxy's own page


@pytest.mark.parametrize("kind", list(SLOW))
def test_slow_bodies(proxy, server, kind):
    with slow_clients(proxy, [SLOW[kind]], count=CLIENTS):
        for _ in range(3):
            assert ask(proxy, "GET", "/v2/nodes")[0] == 200
            assert server.ask("GET", "/livez")[0].status == 200


def test_nginx_keeps_slow_bodies_to_itself_and_counts_them(nginx):
    with slow_clients(nginx, [SLOW["authorize"]], count=CLIENTS) as clients:
        wait_for(lambda: len(clients.statuses) == CLIENTS - 250)
        assert set(clients.statuses) == {429}
        assert clients.standing >= 250


@pytest.mark.parametrize(
    "request_line", [SLOW["authorize"], b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["body", "headers"]
)
def test_a_request_that_stops_is_ended(nginx, request_line):
    with slow_clients(nginx, [request_line], count=5, drop=b"") as clients:
        wait_for(lambda: clients.standing == 0, seconds=ENDED_SECONDS)


def test_slow_headers_are_ended(proxy):
    with slow_clients(proxy, [b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "], count=5, drop=b"x") as clients:
        wait_for(lambda: clients.standing == 0, seconds=ENDED_SECONDS)


def test_nginx_accepts_the_file_as_it_is(tmp_path):
    from modfleet.certificate import ensure_certificate

    certificate, key = ensure_certificate(tmp_path, ["localhost"])
    site = (proxies.DEPLOY / "nginx.conf").read_text()
    for name, made in (("certificate", certificate), ("key", key)):
        site = site.replace(f"/etc/modfleet/tls/{name}.pem", str(made))
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {site} }}")
    done = subprocess.run(
        [proxies.NGINX, "-t", "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "syntax is ok" in done.stderr) == (0, True), done.stderr
