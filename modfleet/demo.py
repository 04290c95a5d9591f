"""Roll out the sample module at the start of `modfleet up`, and call its command on every node."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from modfleet.cluster import Cluster
from modfleet.sample import build_sample, require_compiler, sample_path
from modfleet.supervisor import StartError

#: Percent of the bar for each phase of an operation.
FILLED = {
    "scheduled": 0,
    "queued": 5,
    "fetching": 20,
    "verifying": 40,
    "installing": 55,
    "loading": 70,
    "probing": 85,
    "settling": 90,
}
#: Longest time for the rollout, seconds.
PATIENCE_SECONDS = 300.0


def require_sample(cluster: Cluster) -> None:
    """Check that the sample's package exists or can be built. Raises: `SampleError`."""
    if not _saved_package(cluster).exists():
        require_compiler()


def call_sample(cluster: Cluster, console: Console) -> None:
    """Roll out the sample and call its command on every node. Raises: `StartError`, `SampleError`."""
    try:
        with cluster.client() as api:
            _roll_out(cluster, api, console)
        for node in cluster.nodes:
            with redis.Redis(unix_socket_path=str(node.socket)) as server:
                answer = server.execute_command("GREET.HELLO", node.name)
                console.print(f"{node.name}> GREET.HELLO {node.name}  ->  {answer.decode()}")
    except httpx.TransportError as error:
        raise StartError(f"The API no longer answers: {error}.") from error
    except redis.RedisError as error:
        raise StartError(f"A node's server does not answer the sample's command: {error}.") from error


def _saved_package(cluster: Cluster) -> Path:
    """Return the path of the package. It is built once, because the control plane refuses other bytes of a version."""
    return sample_path(cluster.data_dir / "sample")


def _roll_out(cluster: Cluster, api: httpx.Client, console: Console) -> None:
    nodes = _answer(api.get("/v2/nodes", params={"limit": 1000}))["results"]
    ours = {each.name for each in cluster.nodes}
    if all(_has_greet(each) for each in nodes if each["name"] in ours):
        console.print("greet is already loaded on every node")
        return
    package = _saved_package(cluster)
    artifact = _upload(api, package if package.exists() else build_sample(package.parent))
    console.print(f"uploaded {artifact['module_name']} {artifact['version']}")
    request = {
        "action": "install",
        "module_name": artifact["module_name"],
        "version": artifact["version"],
        # One second is enough to show the phase; the default would delay the first start.
        "strategy": {"max_parallel": len(ours), "settle_seconds": 1},
        "supersede": True,  # an earlier start may have been interrupted during its rollout
    }
    if ours != {each["name"] for each in nodes if each["phase"] != "decommissioned"}:
        request["nodes"] = sorted(ours)  # an earlier start may have had more nodes, which are offline now
    rollout = _watch(api, _answer(api.post("/v2/rollouts", json=request))["uid"], console)
    console.print(f"rollout {rollout['uid']} {rollout['phase']}: {rollout['message']}")
    if rollout["phase"] != "succeeded":
        raise StartError(
            f"The sample's rollout ended as {rollout['phase']}. /v2/rollouts/{rollout['uid']}/nodes has the reasons."
        )


def _has_greet(node: Mapping[str, Any]) -> bool:
    return any(each["module_name"] == "greet" and each["loaded"] for each in node["modules"])


def _upload(api: httpx.Client, package: Path) -> Mapping[str, Any]:
    with package.open("rb") as file:
        return _answer(api.post("/v2/modules/user-defined/artifacts", files={"module": (package.name, file)}))


def _answer(response: httpx.Response) -> Mapping[str, Any]:
    if response.is_error:
        raise StartError(f"The API answered {response.status_code}: {response.text}")
    document: Mapping[str, Any] = response.json()
    return document


def _watch(api: httpx.Client, uid: str, console: Console) -> Mapping[str, Any]:
    """Wait for the end of the rollout and return it. Show a bar for each node; without a terminal, a line for each change."""
    columns = (TextColumn("{task.description:12}"), BarColumn(), TextColumn("{task.fields[phase]}"))
    deadline = time.monotonic() + PATIENCE_SECONDS
    etag = ""
    bars: dict[str, TaskID] = {}
    shown: dict[str, str] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        while time.monotonic() < deadline:
            response = api.get(
                f"/v2/rollouts/{uid}", params={"wait": 10}, headers={"If-None-Match": etag} if etag else {}
            )
            if response.status_code == httpx.codes.NOT_MODIFIED:
                continue
            rollout, etag = _answer(response), response.headers["ETag"]
            for operation in _answer(api.get(f"/v2/rollouts/{uid}/nodes", params={"limit": 1000}))["results"]:
                _show(operation, progress, bars)
                if not console.is_terminal and shown.get(operation["node"]) != operation["phase"]:
                    shown[operation["node"]] = operation["phase"]
                    console.print(f"  {operation['node']}: {operation['phase']}")
            if rollout["finished_at"]:
                return rollout
    raise StartError(f"The sample's rollout {uid} did not end within {PATIENCE_SECONDS:.0f} s.")


def _show(operation: Mapping[str, Any], progress: Progress, bars: dict[str, TaskID]) -> None:
    node, phase = operation["node"], operation["phase"]
    if node not in bars:
        bars[node] = progress.add_task(node, total=100, phase=phase)
    words = f"{phase} ({operation['reason']})" if operation["reason"] else phase
    progress.update(bars[node], completed=FILLED.get(phase, 100), phase=words)
