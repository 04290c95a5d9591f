"""A control plane as `modfleet up` starts it, with many nodes in a few processes."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.processors import seconds_of
from modfleet.cluster import Cluster, ClusterOptions, NodePaths
from rollout.agent.control_plane.identity import Identity, write_identity
from rollout.agent.control_plane.rotation import new_credentials
from rollout.signing import ControlSecret

#: How often the rollout is asked for, seconds: a client that wants to know, and does not hammer.
POLL_SECONDS = 0.2
#: Far above what a rollout may take here, seconds.
TOO_LONG = 300.0


@dataclass
class Fleet:
    """`nodes` are on line, and the API answers."""

    cluster: Cluster
    nodes: list[str]
    api: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.api = httpx.Client(base_url=self.cluster.url, timeout=60)
        credentials = {"username": "admin", "password": self.cluster.password, "ttl": 86_400}
        token = self.answer("POST", "/v1/users/authorize", json=credentials)["access_token"]
        self.api.headers["Authorization"] = f"Bearer {token}"

    def answer(self, method: str, path: str, **options: Any) -> Any:
        response = self.api.request(method, path, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    def upload(self, package: Path) -> tuple[str, int]:
        """Name and version of the module in it."""
        with package.open("rb") as file:
            artifact = self.answer("POST", "/v2/modules/user-defined/artifacts", files={"module": (package.name, file)})
        return artifact["module_name"], artifact["version"]

    def processor_seconds(self) -> dict[str, float]:
        """By part, the processor time that was taken so far."""
        return seconds_of(self.cluster.data_dir / "run")

    def roll_out(self, module_name: str, version: int) -> float:
        """Seconds from the request to the moment at which a client that polls sees `succeeded`."""
        body = {
            "action": "install",
            "module_name": module_name,
            "version": version,
            "activation": "files",
            "strategy": {"canary": 0, "max_parallel": len(self.nodes)},
        }
        began = time.perf_counter()
        rollout = self.answer("POST", "/v2/rollouts", json=body)
        while not rollout["finished_at"]:
            assert time.perf_counter() - began < TOO_LONG, rollout
            time.sleep(POLL_SECONDS)
            rollout = self.answer("GET", f"/v2/rollouts/{rollout['uid']}")
        took = time.perf_counter() - began
        assert rollout["phase"] == "succeeded", rollout
        assert rollout["progress"]["succeeded"] == len(self.nodes), rollout
        return took


@contextmanager
def fleet(folder: Path, *, nodes: int, processes: int, tell: Callable[[str], None]) -> Iterator[Fleet]:
    """A running fleet; all of its processes have ended when this does."""
    kept = dict(os.environ)
    cluster = Cluster(ClusterOptions(data_dir=folder / "control", nodes=0, port=0), tell=tell)
    try:
        cluster.start()
        names = [f"node-{number:03}" for number in range(1, nodes + 1)]
        server = NodePaths(name="server", directory=folder / "server")
        cluster._start_valkey("server", server.socket, ["--save", ""])  # noqa: SLF001 - as the cluster starts them
        for number in range(processes):
            start_nodes(cluster, f"nodes-{number}", names[number::processes], folder=folder, server=server.socket)
        made = Fleet(cluster, names)
        cluster.supervisor.wait_until(lambda: _online(made) == nodes, "waiting for the nodes")
        yield made
        made.api.close()
    finally:
        cluster.stop()
        os.environ.clear()
        os.environ.update(kept)


def start_nodes(cluster: Cluster, name: str, nodes: list[str], *, folder: Path, server: Path) -> None:
    """One worker that is all of `nodes`. They share a server, which they ask as each would ask its own."""
    for node in nodes:
        enrol(node, folder / "nodes")
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("MODFLEET_", "DJANGO_"))},
        "MODFLEET_NODE": nodes[0],
        "MODFLEET_BROKER_URL": os.environ["MODFLEET_BROKER_URL"],
        "MODFLEET_CONTROL_URL": cluster.url,
        "MODFLEET_SERVER_URL": f"unix://{server}",
        "MODFLEET_MODULES_DIR": str(folder / "nodes" / nodes[0] / "modules"),
        "MODFLEET_JOURNAL_DIR": str(folder / "nodes" / nodes[0] / "journal"),
        "BENCH_NODES": ",".join(nodes),
        "BENCH_FOLDER": str(folder / "nodes"),
    }
    cluster.supervisor.start(
        name, [sys.executable, "-m", "celery", "-A", "bench.nodes", "worker", "-l", "INFO"], environ
    )


def enrol(node: str, folder: Path) -> None:
    """Give the node an identity, as `modfleet up` does with its own nodes."""
    from django.conf import settings

    from rollout.services.nodes import enrol_own_node

    file = folder / node / "identity.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    control_keys = (ControlSecret(settings.SECRET_KEY).public,)
    identity = Identity(node=node, credentials=new_credentials(), control_keys=control_keys)
    write_identity(file, identity)
    enrol_own_node(identity)


def _online(fleet: Fleet) -> int:
    return sum(each["phase"] == "online" for each in fleet.answer("GET", "/v2/nodes?limit=1000")["results"])
