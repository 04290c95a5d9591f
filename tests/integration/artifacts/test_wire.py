"""Uploads and downloads through the real server: streamed, bounded, and nothing left behind."""

import json
import socket
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.plugins.cast import basic
from tests.plugins.packages import ARTIFACTS, files_in
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.slow

MEGABYTE = 1_000_000
#: Bytes: more than `MODFLEET_MAX_UPLOAD_BYTES` is by default.
TOO_LARGE = 520 * MEGABYTE
HEAD = b'--b\r\nContent-Disposition: form-data; name="module"; filename="m.zip"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
HEADERS = {"Authorization": basic("admin"), "Content-Type": "multipart/form-data; boundary=b"}


def artifacts(server):
    folder = server.data_dir / "artifacts"
    return files_in(folder) if folder.exists() else []


def pieces(path):
    yield HEAD
    with path.open("rb") as file:
        while piece := file.read(MEGABYTE):
            yield piece
    yield TAIL


def upload(server, path, **headers):
    length = len(HEAD) + path.stat().st_size + len(TAIL)
    headers = {"Content-Length": str(length), **headers}
    return server.ask("POST", ARTIFACTS, pieces(path), {**HEADERS, **headers})


def peak_bytes(server):
    """The most memory that any process of the server ever had."""
    root = server.process.pid
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    status = [Path(f"/proc/{each}/status").read_text() for each in (root, *children)]
    return max(int(text.partition("VmHWM:")[2].split()[0]) * 1024 for text in status)


@pytest.fixture
def package(pack, tmp_path):
    """A path of a package with so many bytes of dependencies."""

    def made(megabytes, version=1):
        path = tmp_path / f"{version}.zip"
        path.write_bytes(pack(version=version))
        with zipfile.ZipFile(path, "a") as archive, archive.open("deps/large.tgz", "w") as member:
            for number in range(megabytes):
                member.write(number.to_bytes(4, "big") * (MEGABYTE // 4))
        return path

    return made


def test_it_works(server, package):
    path = package(1)
    response, body = upload(server, path)
    assert (response.status, json.loads(body)["builds"][0]["size"]) == (201, path.stat().st_size)


def test_a_chunked_upload(server, package):
    chunks = pieces(package(1, version=2))
    response, _ = server.ask("POST", ARTIFACTS, chunks, HEADERS, encode_chunked=True)
    assert response.status == 201


def test_a_client_that_waits_for_100_continue(server, pack):
    body = HEAD + pack(version=3) + TAIL
    lines = [f"{name}: {value}" for name, value in HEADERS.items()]
    lines += ["Host: 127.0.0.1", "Expect: 100-continue", f"Content-Length: {len(body)}"]
    answer = server.send(f"POST {ARTIFACTS} HTTP/1.1\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n", body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")


@pytest.mark.slow
def test_a_large_package_is_never_whole_in_memory(server, package):
    upload(server, package(1, version=4))
    before = peak_bytes(server)
    response, _ = upload(server, package(200, version=5))
    assert response.status == 201
    assert peak_bytes(server) - before < 60 * MEGABYTE


def test_a_package_that_says_it_is_too_large(server):
    """It is refused before it is sent."""
    there = artifacts(server)
    with closing(server.connect()) as connection:
        connection.putrequest("POST", ARTIFACTS)
        for name, value in (HEADERS | {"Content-Length": str(TOO_LARGE)}).items():
            connection.putheader(name, value)
        connection.endheaders(HEAD)
        response = connection.getresponse()
        assert (response.status, json.load(response)["error_code"]) == (413, "artifact_too_large")
    assert artifacts(server) == there


@pytest.mark.slow
def test_a_package_that_turns_out_too_large(server):
    there = artifacts(server)

    def endless():
        yield HEAD
        for _ in range(TOO_LARGE // MEGABYTE):
            yield bytes(MEGABYTE)

    response, body = server.ask("POST", ARTIFACTS, endless(), HEADERS, encode_chunked=True)
    assert (response.status, json.loads(body)["error_code"]) == (413, "artifact_too_large")
    assert artifacts(server) == there


def test_a_client_that_goes_away_leaves_nothing(server, pack):
    there = artifacts(server)
    lines = [f"{name}: {value}" for name, value in HEADERS.items()] + ["Host: 127.0.0.1", "Content-Length: 99000000"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(f"POST {ARTIFACTS} HTTP/1.1\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n")
        connection.sendall(HEAD + bytes(3 * MEGABYTE))
        wait_for(lambda: artifacts(server) != there)
    wait_for(lambda: artifacts(server) == there)
