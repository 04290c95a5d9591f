"""`modfleet adopt`: take over the modules that servers have loaded from paths that are not Modfleet's."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from modfleet.client import NODES, ROLLOUTS, Document, RefusedError, path_to
from modfleet.commands.completion import node_names
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, Yes, open_session, table

#: Name and version of a module.
_Version = tuple[str, int]


@builds(session=open_session)
def adopt(
    session: Session,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NODE...]", help="Only these nodes. Default: all.", autocompletion=node_names),
    ] = None,
    module: Annotated[str | None, typer.Option(help="Only this module.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and start nothing.")] = False,
    yes: Yes = False,
) -> None:
    """Adopt modules that servers have loaded already, and that Modfleet did not install.

    A module is adopted if its file is that of an artifact. A rollout for each module and version puts the files into the
    module store, and writes the lines that the next start of the servers reads. No server loads or unloads anything.
    """
    found = _foreign(session, nodes or [each["name"] for each in session.api.every(NODES)], module)
    plans = {key: _planned(session, key, rows) for key, rows in _by_version(found).items()}
    adoptable = [key for key, plan in plans.items() if plan]
    if dry_run or not adoptable:
        session.show({"modules": found, "rollouts": []}, _in_words)
        return
    if not session.as_json:
        session.say(_in_words({"modules": found}))
    session.confirm("Adopt these modules?", yes=yes)
    rollouts = [session.api.post(ROLLOUTS, plans[key]) for key in adoptable]
    if session.as_json:
        session.print_json({"modules": found, "rollouts": rollouts})
        return
    for each in rollouts:
        session.say(f"{each['module_name']} {each['version']}: modfleet rollout watch {each['uid']}")


def _foreign(session: Session, nodes: Iterable[str], module: str | None) -> list[dict[str, Any]]:
    """Return the loaded modules that are not Modfleet's, without those that come with the server."""
    return [
        {
            "node": name,
            "module_name": each["name"],
            "version": each["version"],
            "path": each["path"],
            "line": each.get("line", ""),
            "plan": "",
        }
        for name in nodes
        for each in (session.api.get(path_to(NODES, name))["server_state"] or {}).get("modules", ())
        if not each["ours"] and not each.get("bundled") and module in {None, each["name"]}
    ]


def _by_version(found: Iterable[dict[str, Any]]) -> dict[_Version, list[dict[str, Any]]]:
    versions: dict[_Version, list[dict[str, Any]]] = {}
    for each in found:
        versions.setdefault((each["module_name"], each["version"]), []).append(each)
    return versions


def _planned(session: Session, key: _Version, rows: list[dict[str, Any]]) -> Document:
    """Write into each row what will be done. Return the body that starts the rollout, None if no node can be adopted."""
    name, version = key
    body = {
        "action": "install",
        "module_name": name,
        "version": version,
        "adopt": True,
        "nodes": [each["node"] for each in rows],
    }
    try:
        plan = session.api.post(f"{ROLLOUTS}/plan", body)
    except RefusedError as error:
        if error.error_code not in {"artifact_not_found", "rollout_in_progress", "validation_error"}:
            raise
        for each in rows:
            each["plan"] = f"skip: {error}"
        return None
    skipped = {each["node"]: each for each in plan["skipped"]}
    for each in rows:
        skip = skipped.get(each["node"])
        what = "replace its line" if each["line"] else "write a line"
        each["plan"] = f"adopt: {what}" if skip is None else f"skip: {skip['reason']}: {skip['message']}"
    return {**body, "plan_hash": plan["plan_hash"]} if plan["waves"] else None


def _in_words(answer: Document) -> RenderableType:
    if not answer["modules"]:
        return "No server has loaded a module that Modfleet did not install."
    columns = ("node", "module_name", "version", "path", "line", "plan")
    rows = ([each[name] for name in columns] for each in answer["modules"])
    return table([name.upper().replace("_", " ") for name in columns], rows)
