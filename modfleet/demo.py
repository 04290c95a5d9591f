"""Roll out the sample module at the start of `modfleet up`, and call its command on every node."""

from pathlib import Path

import redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from modfleet.client import NODES, ROLLOUTS, Client, Document, path_to
from modfleet.cluster import Cluster
from modfleet.commands.session import printable
from modfleet.failure import CommandError
from modfleet.sample import SampleError, build_sample, require_compiler, sample_path
from modfleet.watch import exit_code, next_step, snapshots, why_lines

#: Percent of the bar for each phase of an operation.
FILLED = {
    "scheduled": 0,
    "queued": 5,
    "fetching": 20,
    "verifying": 40,
    "installing": 55,
    "loading": 70,
    "restarting": 70,
    "probing": 85,
    "settling": 90,
}
#: Longest time for the rollout, seconds.
PATIENCE_SECONDS = 300.0


def require_sample(cluster: Cluster) -> None:
    """Check that the sample's package exists or can be built. Raises: `SampleError`."""
    if not _saved_package(cluster).exists():
        require_compiler()


def show_sample(cluster: Cluster, console: Console) -> None:
    """Roll out the sample and call its command on every node. Print what fails: the cluster serves without the sample too."""
    try:
        with cluster.client() as api:
            if not _roll_out(cluster, api, console):
                return
        for node in cluster.nodes:
            with redis.Redis(unix_socket_path=str(node.socket)) as server:
                answer = server.execute_command("GREET.HELLO", node.name)
                console.print(f"{node.name}> GREET.HELLO {node.name}  ->  {answer.decode()}")
    except (CommandError, SampleError, OSError) as error:
        console.print(printable(f"The sample is not rolled out: {error}"))
    except redis.RedisError as error:
        console.print(printable(f"A node's server does not answer the sample's command: {error}"))


def _saved_package(cluster: Cluster) -> Path:
    """Return the path of the package. It is built once, because the control plane refuses other bytes of a version."""
    return sample_path(cluster.data_dir / "sample")


def _roll_out(cluster: Cluster, api: Client, console: Console) -> bool:
    """Return True if every node has the sample; else print why not. Raises: `SampleError`, `CommandError`."""
    nodes = list(api.every(NODES))
    ours = {each.name for each in cluster.nodes}
    if all(_has_greet(each) for each in nodes if each["name"] in ours):
        console.print("greet is already loaded on every node")
        return True
    package = _saved_package(cluster)
    with (package if package.exists() else build_sample(package.parent)).open("rb") as file:
        artifact, _ = api.upload(file, name=package.name)
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
    rollout = _watch(api, api.post(ROLLOUTS, request)["uid"], console)
    console.print(printable(f"rollout {rollout['uid']} {rollout['phase']}: {rollout['message']}"))
    if rollout["phase"] == "succeeded":
        return True
    for line in (*why_lines(api.get(path_to(ROLLOUTS, rollout["uid"], "why"))), next_step(rollout)):
        console.print(printable(f"  {line}"))
    return False


def _has_greet(node: Document) -> bool:
    return any(each["module_name"] == "greet" and each["loaded"] for each in node["modules"])


class _Connection:
    """Prints that the connection is lost, and that it is back."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def lost(self, reason: str) -> None:
        self._console.print(f"connection lost, retrying: {reason}")

    def back(self) -> None:
        self._console.print("reconnected")


def _watch(api: Client, uid: str, console: Console) -> Document:
    """Return the rollout when it has ended or waits for a person. Show a bar for each node; without a terminal, a line for
    each change. Raises: as `snapshots`.
    """
    columns = (TextColumn("{task.description:12}"), BarColumn(), TextColumn("{task.fields[phase]}"))
    bars: dict[str, TaskID] = {}
    shown: dict[str, str] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for snapshot in snapshots(api, uid, timeout=PATIENCE_SECONDS, listener=_Connection(console)):
            for operation in api.every(path_to(ROLLOUTS, uid, "nodes")):
                _show(operation, progress, bars)
                if not console.is_terminal and shown.get(operation["node"]) != operation["phase"]:
                    shown[operation["node"]] = operation["phase"]
                    console.print(f"  {operation['node']}: {operation['phase']}")
            if exit_code(snapshot.rollout) is not None:
                break
            if snapshot.waits and shown.get("waits") != snapshot.waits:
                shown["waits"] = snapshot.waits
                console.print(printable(f"  {snapshot.waits}"))
    return snapshot.rollout


def _show(operation: Document, progress: Progress, bars: dict[str, TaskID]) -> None:
    node, phase = operation["node"], operation["phase"]
    if node not in bars:
        bars[node] = progress.add_task(node, total=100, phase=phase)
    words = f"{phase} ({operation['reason']})" if operation["reason"] else phase
    progress.update(bars[node], completed=FILLED.get(phase, 100), phase=words)
