"""What `modfleet up` shows at its start: the sample module, uploaded once, rolled out to every node, and called there."""

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

#: How far each phase of an operation fills its bar.
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
#: How long the rollout may take, seconds.
PATIENCE_SECONDS = 300.0


def require_sample(cluster: Cluster) -> None:
    """The sample's package is there, or can be built. Raises: `SampleError`."""
    if not _kept_package(cluster).exists():
        require_compiler()


def call_sample(cluster: Cluster, console: Console) -> None:
    """Every node has the sample's command and has answered it. Raises: `StartError`, `SampleError`."""
    try:
        with cluster.client() as api:
            _roll_out(cluster, api, console)
        for node in cluster.nodes:
            with redis.Redis(unix_socket_path=str(node.socket)) as server:
                answer = server.execute_command("GREET.HELLO", node.name)
                console.print(f"{node.name}> GREET.HELLO {node.name}  ->  {answer.decode()}")
    except httpx.TransportError as error:
        raise StartError(f"The API has stopped answering: {error}.") from error
    except redis.RedisError as error:
        raise StartError(f"A node's server does not answer the sample's command: {error}.") from error


def _kept_package(cluster: Cluster) -> Path:
    """Built once: another compiler would make other bytes of the same version, which the control plane refuses."""
    return sample_path(cluster.data_dir / "sample")


def _roll_out(cluster: Cluster, api: httpx.Client, console: Console) -> None:
    nodes = _answer(api.get("/v2/nodes", params={"limit": 1000}))["results"]
    ours = {each.name for each in cluster.nodes}
    if all(_has_greet(each) for each in nodes if each["name"] in ours):
        console.print("greet is loaded on every node already")
        return
    package = _kept_package(cluster)
    artifact = _upload(api, package if package.exists() else build_sample(package.parent))
    console.print(f"uploaded {artifact['module_name']} {artifact['version']} once")
    wanted = {
        "action": "install",
        "module_name": artifact["module_name"],
        "version": artifact["version"],
        # One second is enough to see the phase; the default would make the first start wait.
        "strategy": {"max_parallel": len(ours), "settle_seconds": 1},
        "supersede": True,  # an earlier start may have been interrupted in the middle of it
    }
    if ours != {each["name"] for each in nodes if each["phase"] != "decommissioned"}:
        wanted["nodes"] = sorted(ours)  # of an earlier start with more nodes some are away
    rollout = _watch(api, _answer(api.post("/v2/rollouts", json=wanted))["uid"], console)
    console.print(f"rollout {rollout['uid']} {rollout['phase']}: {rollout['message']}")
    if rollout["phase"] != "succeeded":
        raise StartError(
            f"The sample's rollout ended as {rollout['phase']}; /v2/rollouts/{rollout['uid']}/nodes says why."
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
    """The rollout at its end; meanwhile a bar for each node, and a line for each change where there is no terminal."""
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
