"""Two API processes behind each proxy are restarted one after the other, and no client notices."""

import http.client
import json
import signal
import socketserver
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
import yaml

from modfleet.cluster import SERVER_OPTIONS
from tests.plugins.cast import PASSWORD, basic
from tests.plugins.server import bootstrapped
from tests.ports import free_port
from tests.proxies import DEPLOY, PROXIES
from tests.recorded_fleet import fleet, start
from tests.waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ADMIN = {"Authorization": basic("admin")}
UPLOAD = "/v2/modules/user-defined/artifacts"
METRICS_TOKEN = "0123456789abcdef"
LOGIN = {"username": "admin", "password": PASSWORD}


def ask(port, method, path, body=None, headers=ADMIN):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, b""
    finally:
        connection.close()


def log_in(port):
    return ask(port, "POST", "/v1/users/authorize", json.dumps(LOGIN), {"Content-Type": "application/json"})[0]


class Api:
    """One API process, with its probes on a port of their own."""

    def __init__(self, environ):
        self.port, self._probes = free_port(), free_port()
        self.environ = {
            **environ,
            "MODFLEET_METRICS_TOKEN": METRICS_TOKEN,
            "MODFLEET_PROBE_ADDRESS": f"127.0.0.1:{self._probes}",
        }

    def start(self):
        words = [sys.executable, "-m", "granian", *SERVER_OPTIONS, "--port", str(self.port), "config.asgi:application"]
        self._process = subprocess.Popen(words, env=self.environ, stdout=subprocess.DEVNULL)
        wait_for(self.is_ready)

    def is_ready(self):
        """It has a database; here is no broker and no relay."""
        status, answer = ask(self._probes, "GET", "/readyz")
        return status in {200, 503} and json.loads(answer)["checks"]["database"] == "ok"

    def stop(self):
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(timeout=PATIENCE) == 0

    def restart(self):
        self.stop()
        self.start()


@pytest.fixture(scope="module")
def plane(django_db_setup, django_db_blocker, tmp_path_factory):
    """The two processes and a rollout that no node carries out."""
    data_dir = tmp_path_factory.mktemp("data")
    with django_db_blocker.unblock(), bootstrapped(data_dir) as environ, ExitStack() as stack:
        fleet(1)
        rollout = start()
        pair = [Api(environ) for _ in range(2)]
        for each in pair:
            each.start()
            stack.callback(each.stop)
        yield pair, rollout


@pytest.fixture
def api_alone(plane):
    """A third process, which the test ends."""
    api = Api(plane[0][0].environ)
    api.start()
    yield api
    api.stop()


@pytest.fixture(params=list(PROXIES))
def proxy(request):
    return PROXIES[request.param]


class Clients:
    """Clients that ask again and again: so many requests begin in each second, whether the others are answered or not."""

    def __init__(self, question, *, per_second):
        self.answers: Counter[int | str] = Counter()
        self._question = question
        self._pause = 1 / per_second
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(100)
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self):
        while not self._ended.wait(self._pause):
            self._pool.submit(lambda: self.answers.update([self._question()]))

    def go_on(self, answers):
        """Return once so many more answers have come."""
        seen = self.answers.total()
        wait_for(lambda: self.answers.total() >= seen + answers)

    def end(self):
        """Ask no more. What was asked is still answered."""
        self._ended.set()
        self._thread.join()

    def join(self):
        self.end()
        self._pool.shutdown()


def test_restarts_one_after_the_other_give_no_errors(plane, proxy, tmp_path):
    pair, rollout = plane
    with proxy(tmp_path, [each.port for each in pair]) as port, ExitStack() as stack:
        polling = Clients(lambda: ask(port, "GET", "/v2/nodes")[0], per_second=20)
        stack.callback(polling.join)
        waiting = Clients(lambda: ask(port, "GET", f"/v2/rollouts/{rollout}?wait=60")[0], per_second=2)
        stack.callback(waiting.join)
        for each in pair:
            polling.go_on(20)
            each.restart()
        polling.go_on(20)
        waiting.end()
        for each in pair:  # ends the requests that wait
            each.restart()
    assert set(polling.answers) == {200}
    assert set(waiting.answers) == {200}


def test_requests_that_wait_are_answered_when_their_process_ends(api_alone, plane):
    _, rollout = plane
    with ExitStack() as stack:
        asked = [
            stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", api_alone.port, timeout=PATIENCE)))
            for _ in range(2)
        ]
        for each, path in zip(asked, ("?wait=60", "/events"), strict=True):
            each.request("GET", f"/v2/rollouts/{rollout}{path}", headers=ADMIN)
        assert ask(api_alone.port, "GET", "/livez")[0] == 200  # the requests before it have been taken
        api_alone.stop()
        waited, stream = (each.getresponse() for each in asked)
        assert (waited.status, json.loads(waited.read())["uid"]) == (200, rollout)
        assert stream.read().startswith(b"id: ")  # an answer without its end raises


def test_prometheus_reaches_each_process(plane, proxy, tmp_path):
    pair, _ = plane
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    paths = [each["labels"]["__metrics_path__"] for each in job["static_configs"]]
    bearer = {"Authorization": f"Bearer {METRICS_TOKEN}"}

    def started(port, path):
        status, text = ask(port, "GET", path, headers=bearer)
        assert status == 200, text
        (line,) = [each for each in text.decode().splitlines() if each.startswith("process_start_time_seconds ")]
        return line

    with proxy(tmp_path, [each.port for each in pair]) as port:
        assert ask(port, "GET", paths[0], headers={})[0] == 401
        through = [started(port, path) for path in paths]
        assert through == [started(each.port, "/metrics") for each in pair]
        assert len(set(through)) == 2


class Upstream(socketserver.ThreadingTCPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Breaking)
        self.methods: list[str] = []


class Breaking(socketserver.StreamRequestHandler):
    """Answers the health check. Reads any other request, and closes the connection without an answer."""

    server: Upstream

    def handle(self):
        request, *headers = iter(lambda: self.rfile.readline().strip(), b"")
        length = sum(int(each.split()[1]) for each in headers if each.lower().startswith(b"content-length:"))
        self.rfile.read(length)
        if request.startswith(b"GET /livez "):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            self.server.methods.append(request.split()[0].decode())


@pytest.fixture
def breaking():
    """An upstream that breaks the connection of every request."""
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_request_that_could_not_be_sent_goes_to_the_other(plane, proxy, tmp_path):
    """Of any method, and with a body that is passed on as it arrives."""
    pair, _ = plane
    with proxy(tmp_path, [free_port(), pair[1].port]) as port:
        assert {ask(port, "GET", "/v2/nodes")[0] for _ in range(10)} == {200}
        assert {log_in(port) for _ in range(10)} == {200}
        for _ in range(4):
            status, answer = ask(port, "POST", UPLOAD, b"x" * 5_000_000)
            assert (status, b"error_code" in answer) == (400, True)  # read to its end: it is no package


def test_a_get_that_broke_is_repeated_and_a_post_is_not(plane, proxy, breaking, tmp_path):
    pair, _ = plane
    with proxy(tmp_path, [breaking.server_address[1], pair[1].port]) as port:
        assert {ask(port, "GET", "/v2/nodes")[0] for _ in range(4)} == {200}
        assert "GET" in breaking.methods
    breaking.methods.clear()
    other = tmp_path / "other"
    other.mkdir()
    with proxy(other, [breaking.server_address[1], free_port()]) as port:
        assert log_in(port) == 502
    assert breaking.methods == ["POST"]
