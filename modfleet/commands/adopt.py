"""`modfleet adopt`: take over the modules that servers have loaded from paths that are not Modfleet's."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from modfleet.client import NODES, ROLLOUTS, Document, RefusedError, path_to
from modfleet.commands.completion import node_names
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, Yes, open_session, table
from modfleet.failure import ExitCode

#: Name and version of a module.
_Version = tuple[str, int]
#: Refusals of a whole plan that concern only its module. All others end the command.
_OF_ONE_MODULE = {"artifact_not_found", "rollout_in_progress", "validation_error", "no_nodes", "plan_changed"}


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
    module store, and changes the lines that the next start of the servers reads. No server loads or unloads anything.

    The plan shows counts first, and then what is skipped and what a person must do. --json shows each module of each node.
    """
    found = _foreign(session, nodes or (), module)
    plans = {key: _planned(session, key, rows) for key, rows in _by_version(found).items()}
    adoptable = [key for key, plan in plans.items() if plan]
    if dry_run or not adoptable:
        session.show({"modules": found, "rollouts": []}, _in_words)
        return
    if not session.as_json:
        session.say(_in_words({"modules": found}))
    session.confirm("Adopt these modules?", yes=yes)
    rollouts, refusals = [], []
    for key in adoptable:
        try:
            rollouts.append(session.api.post(ROLLOUTS, plans[key]))
        except RefusedError as error:
            if error.error_code not in _OF_ONE_MODULE:
                raise
            refusals.append(f"{key[0]} {key[1]} was not started: {error}")
    if session.as_json:
        session.print_json({"modules": found, "rollouts": rollouts})
    else:
        for each in rollouts:
            session.say(f"{each['module_name']} {each['version']}: modfleet rollout watch {each['uid']}")
    for refusal in refusals:
        session.note(refusal)
    if refusals:
        raise typer.Exit(ExitCode.FAILED)


def _foreign(session: Session, names: Iterable[str], module: str | None) -> list[dict[str, Any]]:
    """Return the loaded modules that are not Modfleet's, without those that come with the server. One request for each
    thousand nodes. Raises: `RefusedError` if there is no node of one of these names."""
    listed = {each["name"]: each for each in session.api.every(NODES)}
    for name in names:
        if name not in listed:
            session.api.get(path_to(NODES, name))
    return [
        {
            "node": name,
            "module_name": each["name"],
            "version": each["version"],
            "path": each["path"],
            "line": each["line"],
            "by_person": each["by_person"],
            "adopted": False,
            "plan": "",
        }
        for name in names or listed
        for each in listed[name]["foreign_modules"]
        if module in {None, each["name"]}
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
        "nodes": sorted({each["node"] for each in rows}),
    }
    try:
        plan = session.api.post(f"{ROLLOUTS}/plan", body)
    except RefusedError as error:
        if error.error_code not in _OF_ONE_MODULE:
            raise
        for each in rows:
            each["plan"] = f"skip: {error}"
        return None
    skipped = {each["node"]: each for each in plan["skipped"]}
    for each in rows:
        skip = skipped.get(each["node"])
        each["adopted"] = skip is None
        each["plan"] = f"adopt: {_work_on(each)}" if skip is None else f"skip: {skip['reason']}: {skip['message']}"
    return {**body, "plan_hash": plan["plan_hash"]} if plan["waves"] else None


def _work_on(row: dict[str, Any]) -> str:
    if row["by_person"]:
        return "wait until a person has changed its line"
    return "replace its line" if row["line"] else "write a line"


def _in_words(answer: Document) -> RenderableType:
    found = answer["modules"]
    if not found:
        return "There is nothing to adopt: no server has loaded a module that Modfleet did not install."
    parts: list[RenderableType] = [table(("MODULE", "VERSION", "ADOPT", "SKIP"), _counts(found))]
    if waiting := [each for each in found if each["adopted"] and each["by_person"]]:
        rows = ([each[name] for name in ("node", "module_name", "line", "path")] for each in waiting)
        title = "A person must change these lines. `modfleet nodes show NODE` says how, as soon as the adoption waits:"
        parts += ["", title, table(("NODE", "MODULE", "LINE", "PATH"), rows)]
    if skipped := [each for each in found if not each["adopted"]]:
        rows = ([each[name] for name in ("node", "module_name", "version", "path", "plan")] for each in skipped)
        parts += ["", "Skipped:", table(("NODE", "MODULE", "VERSION", "PATH", "WHY"), rows)]
    return Group(*parts)


def _counts(found: list[dict[str, Any]]) -> Iterable[tuple[str, int, int, int]]:
    for (name, version), rows in _by_version(found).items():
        adopted = sum(each["adopted"] for each in rows)
        yield name, version, adopted, len(rows) - adopted
