"""The body of POST /v2/rollouts, from options and a file with the strategy."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from modfleet.commands.completion import ModuleName, Version, node_names
from modfleet.failure import UsageError

NODES, STRATEGY = "Nodes (without any: the whole fleet)", "Strategy (what is left out has the default)"


def _nodes(help_text: str, **more: Any) -> Any:
    return typer.Option(help=help_text, rich_help_panel=NODES, **more)


def _strategy(help_text: str, *, flag: str | None = None, **more: Any) -> Any:
    return typer.Option(*([flag] if flag else []), help=help_text, rich_help_panel=STRATEGY, **more)


def rollout_request(
    module_name: ModuleName,
    version: Version,
    action: Annotated[str, typer.Option(help="install or remove.")] = "install",
    activation: Annotated[
        str | None, typer.Option(help="load (the default): loaded and probed; files: only in place on disk.")
    ] = None,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Take over what an unfinished rollout of this module has not started.")
    ] = False,
    node: Annotated[list[str] | None, _nodes("Only this one; may be repeated.", autocompletion=node_names)] = None,
    name: Annotated[list[str] | None, _nodes("Whose name matches, * for anything; any of several.")] = None,
    label: Annotated[
        list[str] | None, _nodes("With this label; any of several values, all of several labels.", metavar="NAME=VALUE")
    ] = None,
    platform: Annotated[list[str] | None, _nodes("Of this platform, such as linux/x86_64; any of several.")] = None,
    server: Annotated[list[str] | None, _nodes("valkey or redis.")] = None,
    server_version: Annotated[list[str] | None, _nodes("Of this version of the server, such as '9.*'.")] = None,
    role: Annotated[list[str] | None, _nodes("master or replica.")] = None,
    strategy: Annotated[
        Path | None, _strategy("File with a strategy, JSON or YAML; the options win over it.", metavar="FILE")
    ] = None,
    canary: Annotated[str | None, _strategy("Size of the first wave, a number or 10%; 0 for none.")] = None,
    wave: Annotated[list[str] | None, _strategy("Size of a wave after the canary; may be repeated.")] = None,
    max_parallel: Annotated[str | None, _strategy("Nodes that may have it in hand at once.")] = None,
    min_healthy: Annotated[str | None, _strategy("Nodes that stay online, untouched and without a failure.")] = None,
    max_failures: Annotated[str | None, _strategy("Failures that are accepted; more stop the rollout.")] = None,
    on_failure: Annotated[str | None, _strategy("pause, abort or rollback, when it is stopped.")] = None,
    on_abort: Annotated[str | None, _strategy("finish or undo what nodes have in hand.")] = None,
    soak: Annotated[float | None, _strategy("How long health is watched after each wave.", metavar="SECONDS")] = None,
    gate: Annotated[str | None, _strategy("manual: after each wave a person has to promote; none.")] = None,
    settle: Annotated[
        float | None, _strategy("How long a server has to run after the load; 0: not at all.", metavar="SECONDS")
    ] = None,
    node_deadline: Annotated[float | None, _strategy("Longest for one node.", metavar="SECONDS")] = None,
    progress_deadline: Annotated[float | None, _strategy("Longest without any success.", metavar="SECONDS")] = None,
    retries: Annotated[int | None, _strategy("Automatic retries of one node.")] = None,
    retry_backoff: Annotated[
        float | None, _strategy("Wait before the first retry; it doubles.", metavar="SECONDS")
    ] = None,
    retry_reason: Annotated[list[str] | None, _strategy("A failure that is worth a retry; may be repeated.")] = None,
    offline: Annotated[str | None, _strategy("wait, skip or fail: a node that is offline at its turn.")] = None,
    start_at: Annotated[str | None, _strategy("Not before then, such as 2026-11-23T16:20:00Z.", metavar="TIME")] = None,
    approval: Annotated[bool, _strategy("Not before a second person has approved.", flag="--approval")] = False,
) -> dict[str, Any]:
    """Raises: `UsageError`."""
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
        raise UsageError("--node names nodes, and cannot go together with options that select them.")
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
        "offline": offline,
        "start_at": start_at,
        "approval": approval or None,
    }
    careful = _read_strategy(strategy) | {field: value for field, value in options.items() if value not in (None, [])}
    if given := {field: value for field, value in retried.items() if value not in (None, [])}:
        kept = careful.get("retries") or {}
        careful["retries"] = {**kept, **given} if isinstance(kept, dict) else kept
    optional = {"activation": activation, "nodes": node, "selector": chosen, "strategy": careful}
    return {
        "action": action,
        "module_name": module_name,
        "version": version,
        **({"supersede": True} if supersede else {}),
        **{field: value for field, value in optional.items() if value},
    }


def _amount(text: str | None) -> int | str | None:
    """A number of nodes, or a share such as 10%; what is neither, the control plane refuses."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,9}", text) else text


def _label_values(pairs: list[str]) -> dict[str, list[str]]:
    """Raises: `UsageError`."""
    wanted: dict[str, list[str]] = {}
    for each in pairs:
        label, equals, value = each.partition("=")
        if not label or not equals:
            raise UsageError(f"{each} is no label: write it as NAME=VALUE.")
        wanted.setdefault(label, []).append(value)
    return wanted


def _read_strategy(path: Path | None) -> dict[str, Any]:
    """Raises: `UsageError`."""
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
        raise UsageError(f"{path} is no {kind}: {' '.join(str(error).split())}.") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} must hold one object, as docs/reference/strategy.md describes it.")
    return document


class _JsonTypes(yaml.SafeLoader):
    """YAML without its own dates: the API takes a time as text."""


_JsonTypes.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml(text: str) -> Any:
    return yaml.load(text, Loader=_JsonTypes)  # noqa: S506 - a SafeLoader
