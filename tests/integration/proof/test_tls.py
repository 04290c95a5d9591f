"""A proof on servers that accept only TLS, and only clients with a certificate, as is Redis's default: alone, under Sentinel, in a
cluster. The Valkey of the wheel has no TLS."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from modfleet.failure import UsageError
from modfleet.proof.checker import Limits, check
from modfleet.proof.staging import Proof, shape
from modfleet.proof.staging_file import Staging, read_staging
from tests.authority import Authority
from tests.fleet import remove_folder, short_folder
from tests.integration.agent.conftest import SERVERS
from tests.integration.proof.test_staging import compiled
from tests.ports import free_port
from tests.shards import Machine
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

REDIS = SERVERS[1]
COMMANDS = {"add": ["entries.add", "{key}", "{entry}"], "get": ["entries.get", "{key}"]}
TLS = {"ca_file": "tls/ca.pem", "cert_file": "tls/client.pem", "key_file": "tls/client.key"}
PASSWORD = "watch"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = short_folder()
    authority = Authority(folder / "tls")
    for name in ("server", "client"):
        authority.issue(name, "127.0.0.1")
    authority.issue("elsewhere", "elsewhere.example")
    compiled(folder, 1)
    yield folder
    remove_folder(folder)


def lines(folder: Path, port: int, certificate: str = "server") -> list[str]:
    files = {"cert-file": f"{certificate}.pem", "key-file": f"{certificate}.key", "ca-cert-file": "ca.pem"}
    return [
        "port 0",
        f"tls-port {port}",
        "tls-replication yes",
        "replica-announce-ip 127.0.0.1",
        *(f"tls-{name} {folder}/tls/{file}" for name, file in files.items()),
    ]


@contextmanager
def servers(folder: Path, names: str, *more: str, certificate: str = "server") -> Iterator[Sequence[Machine]]:
    with ExitStack() as stack:
        home = short_folder()
        stack.callback(remove_folder, home)
        made = []
        for name in names:
            port = free_port()
            extra = [*lines(folder, port, certificate), *more, f"loadmodule {folder}/entries-1.so"]
            made.append(Machine(name, home / name, REDIS, port=port, extra=extra).start())
            stack.callback(made[-1].stop)
        yield made


@contextmanager
def pair(folder: Path) -> Iterator[dict[str, Any]]:
    with servers(folder, "ab") as (a, b):
        b.call("REPLICAOF", "127.0.0.1", a.port)
        wait_for(partial(b.is_in_step, a))
        yield {"url": f"rediss://127.0.0.1:{a.port}"}


@contextmanager
def watched(folder: Path) -> Iterator[dict[str, Any]]:
    with servers(folder, "ab") as (a, b):
        b.call("REPLICAOF", "127.0.0.1", a.port)
        wait_for(partial(b.is_in_step, a))
        sentinel = Machine("sentinel", a.folder / "sentinel", REDIS, port=free_port())
        sentinel.folder.mkdir()
        text = [
            *lines(folder, sentinel.port),
            f"unixsocket {sentinel.socket}",
            f"requirepass {PASSWORD}",
            f"sentinel monitor main 127.0.0.1 {a.port} 1",
        ]
        sentinel.file.write_text("".join(f"{line}\n" for line in text))
        (folder / "sentinel.password").write_text(PASSWORD)
        process = subprocess.Popen(
            [REDIS, sentinel.file, "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(sentinel.socket.exists)
            yield {
                "sentinel": {
                    "hosts": [f"127.0.0.1:{sentinel.port}"],
                    "name": "main",
                    "password_file": "sentinel.password",
                }
            }
        finally:
            process.kill()
            process.wait()


@contextmanager
def clustered(folder: Path) -> Iterator[dict[str, Any]]:
    with servers(folder, "a", "cluster-enabled yes", "tls-cluster yes", f"cluster-port {free_port()}") as (a,):
        a.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_for(lambda: a.call("CLUSTER INFO")["cluster_state"] == "ok")
        yield {"cluster": [f"127.0.0.1:{a.port}"]}


def staging(folder: Path, reached: dict[str, Any]) -> Staging:
    document = {"servers": reached, "module": "entries", "commands": COMMANDS, "entries_at": 2, "rate": 400}
    file = folder / "staging.yaml"
    file.write_text(yaml.safe_dump(document))
    return read_staging(file)


@pytest.mark.parametrize(
    ("topology", "found"),
    [(pair, "1 master, 1 replica"), (watched, "1 master, 1 replica"), (clustered, "1 master, 0 replicas")],
)
def test_it_works(folder, tmp_path, topology, found):
    with topology(folder) as reached:
        proof = Proof(staging(folder, {**reached, "tls": TLS}), tmp_path, seed=1, run="run")
        wait_for(partial(is_prepared, proof))
        assert shape(proof.before) == found
        try:
            proof.start()
            wait_for(lambda: proof.count().acknowledged > 100)
        finally:
            proof.end()
        assert proof.dump(print) == []
        verdict = check(tmp_path, Limits(stall_ratio=None, restarted=False))
        assert (verdict.violations, verdict.errors, verdict.writes > 50) == ([], {}, True)
        assert proof.clean_up(print) == []


def is_prepared(proof: Proof) -> bool:
    try:
        proof.prepare()
    except UsageError as error:
        if "No server can be used" in str(error):  # Sentinel has not connected yet
            return False
        raise
    return True


@pytest.mark.parametrize(
    ("certificate", "tls", "sentence"),
    [
        ("server", {}, "certificate verify failed"),
        (
            "server",
            {"ca_file": "tls/ca.pem"},
            "(certificate required|violation of protocol|reset by peer|closed by server)",
        ),
        ("elsewhere", TLS, "certificate is not valid for '127.0.0.1'"),
    ],
)
def test_what_is_not_trusted_is_refused(folder, tmp_path, certificate, tls, sentence):
    with servers(folder, "a", certificate=certificate) as (a,):
        reached = {"url": f"rediss://127.0.0.1:{a.port}", "tls": tls}
        with pytest.raises(UsageError, match=f"No server can be used: 127.0.0.1:{a.port}: closed: .*{sentence}"):
            Proof(staging(folder, reached), tmp_path, seed=1, run="run").prepare()


def test_a_name_that_no_sentinel_knows(folder, tmp_path):
    with watched(folder) as reached:
        reached["sentinel"]["name"] = "other"
        proof = Proof(staging(folder, {**reached, "tls": TLS}), tmp_path, seed=1, run="run")
        with pytest.raises(
            UsageError, match=r"No server can be used: 127.0.0.1:\d+: this Sentinel knows no master other\."
        ):
            proof.prepare()


def test_host_names_that_are_not_checked(folder, tmp_path):
    with servers(folder, "a", certificate="elsewhere") as (a,):
        reached = {"url": f"rediss://127.0.0.1:{a.port}", "tls": {**TLS, "check_hostname": False}}
        Proof(staging(folder, reached), tmp_path, seed=1, run="run").prepare()
