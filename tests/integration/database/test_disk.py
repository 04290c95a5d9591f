"""A disk that is full and an SQLite that is locked: what clients get, what `/readyz` says, and that nothing is left.

A limit of the size of files stands for the full disk: no root is needed to set one for a process that runs.
"""

import json
import resource
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from django.db import connection

from eventstore import head
from tests.plugins.cast import PASSWORD, basic
from tests.plugins.packages import ARTIFACTS, LOCAL, as_upload, files_in
from tests.plugins.played_nodes import join
from tests.plugins.server import Server, prepared, serving
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

ADMIN = {"Authorization": basic("admin")}
FREEZE = json.dumps({"reason": "test"})
JSON = {**ADMIN, "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    environment = prepared(data_dir, MODFLEET_DATABASE_LOCK_SECONDS="0.5")
    with serving(environment, data_dir) as served:
        yield served


def full(server: Server, largest: int):
    """No file of the server's processes may be larger than so many bytes."""
    return _limited([server.process.pid, *_children(server.process.pid)], largest)


@contextmanager
def _limited(pids, largest):
    former = resource.prlimit(pids[0], resource.RLIMIT_FSIZE)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, former[1]))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, former)


def _children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def locked(server: Server):
    """Another process writes, and does not end."""
    with closing(sqlite3.connect(server.data_dir / "modfleet.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def open_elsewhere(server: Server):
    """As by the relay: a first connection would have to make files beside the database."""
    with closing(sqlite3.connect(server.data_dir / "modfleet.sqlite3")) as other:
        other.execute("SELECT count(*) FROM eventstore_event").fetchone()
        yield


def refused(answer, status, code):
    response, body = answer
    assert (response.status, json.loads(body)["error_code"]) == (status, code)
    assert int(response.headers["Retry-After"]) > 0


def causes(server):
    return json.loads(server.ask("GET", "/readyz")[1])["causes"]


def form(package):
    return (
        b'--b\r\nContent-Disposition: form-data; name="module"; filename="m.zip"\r\n\r\n' + package + b"\r\n--b--\r\n"
    )


def upload(server, package, path=ARTIFACTS):
    return server.ask("POST", path, form(package), {**ADMIN, "Content-Type": "multipart/form-data; boundary=b"})


def kept(server):
    folder = server.data_dir / "artifacts"
    return files_in(folder) if folder.exists() else []


def test_an_upload_to_a_full_disk(server, pack):
    package = pack(members={"deps/large": bytes(3_000_000)}, version=3)
    before = kept(server)
    with full(server, 500_000):
        refused(upload(server, package), 507, "storage_full")
        assert kept(server) == before
        wait_for(lambda: causes(server).get("storage") == "full")
    assert upload(server, package)[0].status == 201
    assert len(kept(server)) == len(before) + 1
    wait_for(lambda: "storage" not in causes(server))


def test_a_database_whose_files_cannot_grow(server):
    with open_elsewhere(server), full(server, 1):
        refused(server.ask("POST", "/v2/freeze", FREEZE, JSON), 503, "database_unavailable")
        assert server.ask("GET", "/v2/nodes", headers=ADMIN)[0].status == 200
        wait_for(lambda: causes(server).get("database") == "unreachable")
    wait_for(lambda: "database" not in causes(server))


def test_a_locked_database(server, pack):
    before = kept(server)
    with locked(server):
        refused(server.ask("POST", "/v2/freeze", FREEZE, JSON), 503, "database_unavailable")
        refused(upload(server, pack(version=7)), 503, "database_unavailable")
        assert kept(server) == before
        assert server.ask("GET", "/v2/nodes", headers=ADMIN)[0].status == 200
        wait_for(lambda: causes(server).get("database") == "locked")
    assert upload(server, pack(version=7))[0].status == 201


def test_the_login_page_of_a_locked_database(server):
    response, body = server.ask("GET", "/admin/login/")
    cookie = response.headers["Set-Cookie"].partition(";")[0]
    token = body.partition(b'name="csrfmiddlewaretoken" value="')[2].partition(b'"')[0].decode()
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    form = f"csrfmiddlewaretoken={token}&username=admin&password={PASSWORD.replace(' ', '+')}"
    with locked(server):
        response, body = server.ask("POST", "/admin/login/", form, headers)
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert b"Try again in a moment" in body
    assert server.ask("POST", "/admin/login/", form, headers)[0].status == 302


@pytest.mark.parametrize(("path", "status"), [(ARTIFACTS, 507), ("/v2/modules", 507), (LOCAL, 503)])
def test_a_full_database_keeps_no_package(committed_admin, storage, settings, pack, path, status):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, node_name="node1")
    join("node1")
    before = head()
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA page_count")
        cursor.execute(f"PRAGMA max_page_count = {cursor.fetchone()[0]}")
    large = pack(members={f"deps/{number:04d}": b"x" for number in range(900)})
    response = committed_admin.post(path, as_upload(large))
    assert (response.status_code, response.json()["error_code"], head()) == (status, "storage_full", before)
    assert response["Retry-After"] == "60"
    assert files_in(storage) == []
