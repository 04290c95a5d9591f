"""Build the body of POST /v2/rollouts from options and a strategy file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from modfleet.commands.completion import ModuleName, Version, node_names
from modfleet.failure import UsageError

NODES, STRATEGY = "Nodes (default: the whole fleet)", "Strategy"


def _nodes(help_text: str, **more: Any) -> Any:
    return typer.Option(help=help_text, rich_help_panel=NODES, **more)


def _strategy(help_text: str, *, flag: str | None = None, **more: Any) -> Any:
    return typer.Option(*([flag] if flag else []), help=help_text, rich_help_panel=STRATEGY, **more)


def rollout_request(
    module_name: ModuleName,
    version: Version,
    action: Annotated[str, typer.Option(help="What to do: install or remove.")] = "install",
    activation: Annotated[
        str | None,
        typer.Option(
            help="load: load the module into the running server. restart: restart the server with it. auto: load where that is possible, else restart. files: only copy its files. Default: auto."
        ),
    ] = None,
    supersede: Annotated[
        bool,
        typer.Option(
            "--supersede",
            help="If an older rollout of this module is unfinished, cancel its operations that have not started, on the nodes of this rollout.",
        ),
    ] = False,
    even_if_used: Annotated[
        bool,
        typer.Option(
            "--even-if-used", help="Remove the module even if its commands were called in the last 10 minutes."
        ),
    ] = False,
    may_interrupt: Annotated[
        bool,
        typer.Option("--may-interrupt", help="Restart a server even if no other one can take over its clients."),
    ] = False,
    may_discard_data: Annotated[
        bool,
        typer.Option(
            "--may-discard-data",
            help="Restart a server even if its data is neither on disk nor on a replica; go back from a one-way change with the data from before.",
        ),
    ] = False,
    failback: Annotated[
        bool,
        typer.Option(
            "--failback",
            help="After a success, make each master that gave its role away the master again, in a new rollout.",
        ),
    ] = False,
    node: Annotated[list[str] | None, _nodes("Only this node. Repeatable.", autocompletion=node_names)] = None,
    name: Annotated[list[str] | None, _nodes("Only nodes whose name matches, such as 'cache-*'. Repeatable.")] = None,
    label: Annotated[
        list[str] | None,
        _nodes(
            "Only nodes with this label. Repeatable: values of one name are alternatives; different names must all match.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    platform: Annotated[
        list[str] | None, _nodes("Only nodes of this platform, such as linux/x86_64. Repeatable.")
    ] = None,
    server: Annotated[list[str] | None, _nodes("Only nodes with this server: valkey or redis. Repeatable.")] = None,
    server_version: Annotated[
        list[str] | None, _nodes("Only nodes with this server version or its beginning: 8.1 matches 8.1.3. Repeatable.")
    ] = None,
    role: Annotated[list[str] | None, _nodes("Only nodes with this role: master or replica. Repeatable.")] = None,
    strategy: Annotated[
        Path | None, _strategy("JSON or YAML file with a strategy. The options override it.", metavar="FILE")
    ] = None,
    canary: Annotated[
        str | None, _strategy("Nodes in the first wave: a number, or a share such as 10%. 0: no canary. Default: 1.")
    ] = None,
    wave: Annotated[
        list[str] | None,
        _strategy("Nodes in a further wave: a number or a share. Repeatable. The remaining nodes are the last wave."),
    ] = None,
    max_parallel: Annotated[
        str | None, _strategy("Nodes updated in parallel: a number or a share. Default: 10.")
    ] = None,
    min_healthy: Annotated[
        str | None,
        _strategy(
            "Keep at least this many nodes healthy: online, not failed, and not being changed. A number or a share. Default: 0."
        ),
    ] = None,
    max_failures: Annotated[
        str | None, _strategy("Nodes that may fail: a number or a share. More failures stop the rollout. Default: 0.")
    ] = None,
    on_failure: Annotated[
        str | None,
        _strategy(
            "What to do if more nodes fail than --max-failures accepts, or no node succeeds for too long: pause, abort or rollback. Default: pause."
        ),
    ] = None,
    on_abort: Annotated[
        str | None, _strategy("Nodes in progress at an abort: finish or undo. Default: finish.")
    ] = None,
    soak: Annotated[
        float | None,
        _strategy("Seconds to watch the health of the nodes after each wave. Default: 0.", metavar="SECONDS"),
    ] = None,
    gate: Annotated[
        str | None,
        _strategy("manual: after each wave except the last, a person must promote the rollout. Default: none."),
    ] = None,
    settle: Annotated[
        float | None,
        _strategy("Seconds that a server must keep running after the load. Default: 10.", metavar="SECONDS"),
    ] = None,
    failed_calls: Annotated[
        str | None,
        _strategy(
            "If more than twice the share of calls of the module's commands fails while the server settles: warn or stop. Default: warn."
        ),
    ] = None,
    node_deadline: Annotated[
        float | None, _strategy("Longest time for one node, in seconds. Default: 300.", metavar="SECONDS")
    ] = None,
    progress_deadline: Annotated[
        float | None,
        _strategy(
            "Longest time without a success, in seconds. Then the rollout stops. Default: 600.", metavar="SECONDS"
        ),
    ] = None,
    retries: Annotated[int | None, _strategy("Automatic retries of one node. Default: 2.")] = None,
    retry_backoff: Annotated[
        float | None,
        _strategy("Seconds before the first retry. The wait doubles with each retry. Default: 5.", metavar="SECONDS"),
    ] = None,
    retry_reason: Annotated[
        list[str] | None,
        _strategy(
            "Retry a node automatically if it failed for this reason. Repeatable. Default: fetch_failed, server_unreachable, module_busy."
        ),
    ] = None,
    window: Annotated[
        str | None,
        _strategy(
            "Restart servers only in this weekly window, such as 'Sat 01:00-05:00 Europe/Berlin'. Default: always.",
            metavar="WINDOW",
        ),
    ] = None,
    offline: Annotated[
        str | None, _strategy("A node that is offline at its turn: wait, skip or fail. Default: wait.")
    ] = None,
    start_at: Annotated[
        str | None, _strategy("Earliest start, such as 2026-11-23T16:20:00Z. Default: at once.", metavar="TIME")
    ] = None,
    approval: Annotated[bool, _strategy("Start only after a second person approves.", flag="--approval")] = False,
) -> dict[str, Any]:
    """Return the body. Raises: `UsageError`."""
    selector = {
        "names": name,
        "labels": _label_values(label or []),
        "platforms": platform,
        "servers": server,
        "versions": server_version,
        "roles": role,
    }
    chosen = {field: values for field, values in selector.items() if values}
    if node and chosen:
        raise UsageError("--node cannot be combined with options that select nodes, such as --name or --label.")
    retried = {"limit": retries, "backoff_seconds": retry_backoff, "reasons": retry_reason}
    options = {
        "canary": _amount(canary),
        "waves": [_amount(each) for each in wave or []],
        "max_parallel": _amount(max_parallel),
        "min_healthy": _amount(min_healthy),
        "max_failures": _amount(max_failures),
        "on_failure": on_failure,
        "on_abort": on_abort,
        "soak_seconds": soak,
        "gate": gate,
        "settle_seconds": settle,
        "node_deadline_seconds": node_deadline,
        "progress_deadline_seconds": progress_deadline,
        "window": window,
        "offline": offline,
        "start_at": start_at,
        "approval": approval or None,
    }
    merged = _read_strategy(strategy) | {field: value for field, value in options.items() if value not in (None, [])}
    if given := {field: value for field, value in retried.items() if value not in (None, [])}:
        kept = merged.get("retries") or {}
        merged["retries"] = {**kept, **given} if isinstance(kept, dict) else kept
    if failed_calls is not None:
        kept = merged.get("health") or {}
        merged["health"] = {**kept, "failed_calls": failed_calls} if isinstance(kept, dict) else kept
    optional = {"activation": activation, "nodes": node, "selector": chosen, "strategy": merged}
    return {
        "action": action,
        "module_name": module_name,
        "version": version,
        **({"supersede": True} if supersede else {}),
        **({"even_if_used": True} if even_if_used else {}),
        **({"may_interrupt": True} if may_interrupt else {}),
        **({"may_discard_data": True} if may_discard_data else {}),
        **({"failback": True} if failback else {}),
        **{field: value for field, value in optional.items() if value},
    }


def _amount(text: str | None) -> int | str | None:
    """Return a number of nodes, or a share such as 10%. The control plane refuses anything else."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,9}", text) else text


def _label_values(pairs: list[str]) -> dict[str, list[str]]:
    """Return the values by label name. Raises: `UsageError`."""
    values: dict[str, list[str]] = {}
    for each in pairs:
        label, equals, value = each.partition("=")
        if not label or not equals:
            raise UsageError(f"{each} is not a label. Write it as NAME=VALUE.")
        values.setdefault(label, []).append(value)
    return values


def _read_strategy(path: Path | None) -> dict[str, Any]:
    """Return the fields of the file. Raises: `UsageError`."""
    if path is None:
        return {}
    is_json = path.suffix.lower() == ".json"
    read: Callable[[str], Any] = json.loads if is_json else _yaml
    try:
        document = read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        kind = "JSON" if is_json else "YAML"
        raise UsageError(f"{path} is not valid {kind}: {' '.join(str(error).split())}.") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} must contain one object with the fields of docs/reference/strategy.md.")
    return document


class _JsonTypes(yaml.SafeLoader):
    """YAML without dates: the API takes a time as text."""


_JsonTypes.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml(text: str) -> Any:
    return yaml.load(text, Loader=_JsonTypes)  # noqa: S506 - a SafeLoader
