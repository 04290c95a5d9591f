"""What `modfleet up` shows at its start: the sample module, uploaded once, rolled out to every node, and called there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from modfleet.cluster import Cluster
from modfleet.processes import StartError
from modfleet.sample import build_sample

#: How far each phase of an operation fills its bar.
FILLED = {
    "scheduled": 0,
    "queued": 5,
    "fetching": 20,
    "verifying": 40,
    "installing": 55,
    "loading": 70,
    "probing": 85,
}


def show_sample(cluster: Cluster, console: Console) -> None:
    """Raises: `StartError`, `modfleet.sample.SampleError`."""
    package = build_sample(cluster.data_dir / "sample")
    verify = str(cluster.certificate) if cluster.certificate else True
    with httpx.Client(base_url=cluster.url, auth=("admin", cluster.password), verify=verify, timeout=60) as api:
        artifact = _upload(api, package)
        console.print(f"uploaded {artifact['module_name']} {artifact['version']} once")
        rollout = _answer(
            api.post(
                "/v2/rollouts",
                json={
                    "action": "install",
                    "module_name": artifact["module_name"],
                    "version": artifact["version"],
                    "strategy": {"max_parallel": max(1, len(cluster.nodes))},
                },
            )
        )
        rollout = _watch(api, rollout["uid"], console)
    console.print(f"rollout {rollout['uid']} {rollout['phase']}: {rollout['message']}")
    if rollout["phase"] != "succeeded":
        raise StartError("The sample's rollout did not succeed; GET /v2/rollouts/{uid}/nodes says why.")
    for node in cluster.nodes:
        with redis.Redis(unix_socket_path=str(node.socket)) as server:
            answer = server.execute_command("GREET.HELLO", node.name)  # type: ignore[no-untyped-call]  # of redis-py
            console.print(f"{node.name}> GREET.HELLO {node.name}  ->  {answer.decode()}")


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
    etag, bars, shown = "", {}, {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        while True:
            response = api.get(
                f"/v2/rollouts/{uid}", params={"wait": 10}, headers={"If-None-Match": etag} if etag else {}
            )
            if response.status_code != 304:
                rollout, etag = _answer(response), response.headers["ETag"]
                for operation in _answer(api.get(f"/v2/rollouts/{uid}/nodes", params={"limit": 1000}))["results"]:
                    _show(operation, progress, bars)
                    if not console.is_terminal and shown.get(operation["node"]) != operation["phase"]:
                        shown[operation["node"]] = operation["phase"]
                        console.print(f"  {operation['node']}: {operation['phase']}")
                if rollout["finished_at"]:
                    return rollout


def _show(operation: Mapping[str, Any], progress: Progress, bars: dict[str, TaskID]) -> None:
    node, phase = operation["node"], operation["phase"]
    if node not in bars:
        bars[node] = progress.add_task(node, total=100, phase=phase)
    words = f"{phase} ({operation['reason']})" if operation["reason"] else phase
    progress.update(bars[node], completed=FILLED.get(phase, 100), phase=words)
