"""`modfleet rollout`: plan, start, watch and steer rollouts."""

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from modfleet.client import ROLLOUTS, Document, Query, path_to
from modfleet.commands.completion import NodeName, RolloutUid, node_names
from modfleet.commands.parameters import builds
from modfleet.commands.request import rollout_request
from modfleet.commands.session import Session, Yes, is_a_person_there, open_session, printable, sheet, table
from modfleet.commands.watching import counted, reason_of, static_picture, title, watch_rollout
from modfleet.failure import EXIT_CODES, UsageError
from modfleet.watch import Snapshot, attempt_in_words, failed_nodes, outcomes_of, whose

app = typer.Typer(no_args_is_help=True, help="Plan, start, watch and steer rollouts.")

#: Nodes that are named in the plan of a wave.
NAMED = 8

Timeout = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Watch no longer than this; the rollout goes on.")
]
UntilTheEnd = Annotated[bool, typer.Option("--until-the-end", help="Go on watching where a person is waited for.")]
PlanHash = Annotated[
    str | None, typer.Option(metavar="HASH", help="Start only if it would do what the plan with this hash has shown.")
]
Remark = Annotated[str | None, typer.Option(help="Why, for the log. Asked for on a terminal.")]


@app.command()
@builds(session=open_session, request=rollout_request)
def plan(session: Session, request: dict[str, Any]) -> None:
    """Show what a rollout would do, wave by node. Nothing is started."""
    session.show(session.api.post(f"{ROLLOUTS}/plan", request), _plan_in_words)


@app.command(epilog=EXIT_CODES)
@builds(session=open_session, request=rollout_request)
def start(
    session: Session,
    request: dict[str, Any],
    plan_hash: PlanHash = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it, as `modfleet rollout watch` does.")] = False,
    timeout: Timeout = None,
    until_the_end: UntilTheEnd = False,
    yes: Yes = False,
) -> None:
    """Start a rollout: bring a module to the nodes, or remove it.

    On a terminal the plan is shown first, and it starts only if you say so. See docs/reference/strategy.md.
    """
    if plan_hash is None and not yes and not session.as_json and is_a_person_there():
        shown = session.api.post(f"{ROLLOUTS}/plan", request)
        session.show(shown, _plan_in_words)
        session.confirm("Start it?", yes=False)
        plan_hash = shown["plan_hash"]
    rollout = session.api.post(ROLLOUTS, request if plan_hash is None else {**request, "plan_hash": plan_hash})
    if watch:
        raise typer.Exit(watch_rollout(session, rollout["uid"], timeout=timeout, until_the_end=until_the_end))
    session.show(rollout, _phase_in_words)
    _tell_how_to_follow(session, rollout)


@app.command(epilog=EXIT_CODES)
@builds(session=open_session)
def watch(uid: RolloutUid, session: Session, timeout: Timeout = None, until_the_end: UntilTheEnd = False) -> None:
    """Follow a rollout until it ends or waits for a person, over any loss of the connection.

    A terminal shows bars per wave and the failing nodes' reasons, anything else a line for each change. With --json
    each change is one JSON document in one line; the last is how it stands in the end.
    """
    raise typer.Exit(watch_rollout(session, uid, timeout=timeout, until_the_end=until_the_end))


@app.command()
@builds(session=open_session)
def status(uid: RolloutUid, session: Session) -> None:
    """Show who started a rollout and how far it is, what has stopped it, what people did, and each attempt that failed,
    also if it was retried or undone."""
    rollout = session.api.get(path_to(ROLLOUTS, uid))
    if session.as_json:
        session.print_json(rollout)
        return
    failures = failed_nodes(session.api, rollout)
    session.say(static_picture(Snapshot(rollout=rollout, failures=failures), session.console))


@app.command("list")
@builds(session=open_session)
def list_rollouts(
    session: Session,
    phase: Annotated[list[str] | None, typer.Option(help="Only those in this phase; any of several.")] = None,
    module: Annotated[str | None, typer.Option(help="Only those of this module.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0 for all.")] = 50,
) -> None:
    """List rollouts, the newest first."""
    asked: dict[str, Query] = {"phase": phase} if phase else {}
    if module is not None:
        asked["module_name"] = module
    session.show(list(session.api.every(ROLLOUTS, asked, most=limit or None)), _in_a_table)


def _in_a_table(found: list[Document]) -> RenderableType:
    return table(
        ("UID", "ACTION", "MODULE", "VERSION", "PHASE", "DONE", "BY", "CREATED AT"),
        (
            (
                each["uid"],
                "roll back" if each["rollback_of"] else each["action"],
                each["module_name"],
                each["version"],
                each["phase"],
                f"{each['progress']['percent']} %",
                each["actor"],
                each["created_at"],
            )
            for each in found
        ),
    )


@app.command("nodes")
@builds(session=open_session)
def list_nodes(uid: RolloutUid, session: Session) -> None:
    """List the rollout's nodes, in its order, and how far each is. Each attempt and each undo has a line, with who asked
    for it and who canceled it."""
    session.show(list(session.api.every(path_to(ROLLOUTS, uid, "nodes"))), _nodes_in_a_table)


def _nodes_in_a_table(found: list[Document]) -> RenderableType:
    names = ("node", "wave", "phase", "reason", "attempt", "seconds", "by", "message")
    lines = (
        {**each, "attempt": attempt_in_words(each), "by": whose(each)} for node in found for each in _attempts(node)
    )
    return table([name.upper() for name in names], ([each[name] for name in names] for each in lines))


def _attempts(node: Document) -> list[Document]:
    """The node as it was after each attempt, and as it is now."""
    outcomes = outcomes_of(node)
    return [*({**node, **each} for each in (outcomes[:-1] if node["finished_at"] else outcomes)), node]


@app.command()
@builds(session=open_session)
def pause(uid: RolloutUid, session: Session) -> None:
    """Release nothing new. What was released goes on."""
    _ask_for(session, uid, "pause")


@app.command()
@builds(session=open_session)
def resume(uid: RolloutUid, session: Session) -> None:
    """Go on. Failures so far do not count any more."""
    _ask_for(session, uid, "resume")


@app.command()
@builds(session=open_session)
def promote(
    uid: RolloutUid,
    session: Session,
    wave: Annotated[
        int | None, typer.Option(min=0, help="The wave whose gate is meant; left out: the one at which it waits.")
    ] = None,
) -> None:
    """Open the gate after a wave."""
    _ask_for(session, uid, "promote", {} if wave is None else {"wave": wave})


@app.command()
@builds(session=open_session)
def abort(uid: RolloutUid, session: Session, yes: Yes = False) -> None:
    """Start nothing more. What runs finishes or is undone, as its --on-abort says."""
    session.confirm(f"Abort {uid}?", yes=yes)
    _ask_for(session, uid, "abort")


@app.command()
@builds(session=open_session)
def retry(uid: RolloutUid, session: Session) -> None:
    """Try the failed nodes again: in this rollout, or in a new one if it has ended."""
    _ask_for(session, uid, "retry")


@app.command()
@builds(session=open_session)
def rollback(uid: RolloutUid, session: Session, yes: Yes = False) -> None:
    """Give every node back what it had before: in this rollout, or in a new one if it has ended."""
    session.confirm(f"Roll {uid} back?", yes=yes)
    _ask_for(session, uid, "rollback")


@app.command()
@builds(session=open_session)
def approve(uid: RolloutUid, session: Session, remark: Remark = None) -> None:
    """Let it start. Another person than the one who started it has to."""
    _ask_for(session, uid, "approve", {"remark": _reason(remark)})


@app.command()
@builds(session=open_session)
def reject(uid: RolloutUid, session: Session, remark: Remark = None) -> None:
    """End it before it has started."""
    _ask_for(session, uid, "reject", {"remark": _reason(remark)})


def _reason(remark: str | None) -> str:
    """Raises: `UsageError` where there is nobody to ask."""
    if remark is None and not is_a_person_there():
        raise UsageError("Say why, for the log: --remark TEXT.")
    return typer.prompt("Why", err=True) if remark is None else remark


@app.command()
@builds(session=open_session)
def cancel(
    uid: RolloutUid,
    node: NodeName,
    session: Session,
    force: Annotated[bool, typer.Option("--force", help="End it without waiting for the node's answer.")] = False,
) -> None:
    """Do nothing (more) on one node of the rollout."""
    operation = session.api.post(path_to(ROLLOUTS, uid, "nodes", node, "cancel"), {"force": force})
    session.show(operation, lambda each: printable(f"{each['node']}: {reason_of(each)}"))


@app.command()
@builds(session=open_session)
def why(
    uid: RolloutUid,
    session: Session,
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Only this node.", autocompletion=node_names)
    ] = None,
) -> None:
    """Say why a rollout, or one node of it, is in its phase, and what it waits for."""
    below = () if node is None else ("nodes", node)
    session.show(session.api.get(path_to(ROLLOUTS, uid, *below, "why")), _why_in_words)


@app.command()
@builds(session=open_session)
def report(uid: RolloutUid, session: Session) -> None:
    """Print a rollout's whole story for a change ticket: CSV, or JSON with --json."""
    path = path_to(ROLLOUTS, uid, "report")
    if session.as_json:
        session.print_json(session.api.get(path, format="json"))
    else:
        session.print_file(session.api.text(path, format="csv"))


def _ask_for(session: Session, uid: str, verb: str, body: Document = None) -> None:
    rollout = session.api.post(path_to(ROLLOUTS, uid, verb), body)
    session.show(rollout, _phase_in_words)
    if left := rollout.get("left_alone", {}).get("text"):
        session.note(printable(left))
    if rollout["uid"] != uid:
        _tell_how_to_follow(session, rollout)


def _tell_how_to_follow(session: Session, rollout: Document) -> None:
    session.note(f"`modfleet rollout watch {rollout['uid']}` follows it.")


def _phase_in_words(rollout: Document) -> str:
    return printable(f"{title(rollout)} is {rollout['phase']}, {counted(rollout['progress'])}")


def _why_in_words(answer: Document) -> RenderableType:
    waits = [
        f"waits for: {each['text']}{' until ' + each['until'] if each['until'] else ''}" for each in answer["waits_for"]
    ]
    lines = [answer["summary"], f"rule {answer['rule']['id']}: {answer['rule']['text']}", *waits]
    parts: list[RenderableType] = [Text(printable(each)) for each in lines]
    columns = ("POSITION", "RECORDED AT", "ACTOR", "TYPE")
    rows = ((each["position"], each["recorded_at"], each["actor"], each["type"]) for each in answer["events"])
    return Group(*parts, "", table(columns, rows)) if answer["events"] else Group(*parts)


def _plan_in_words(plan: Document) -> RenderableType:
    fields = ("action", "module_name", "version", "activation", "total", "bytes", "predicted_seconds", "plan_hash")
    waves = table(
        ("WAVE", "NODES", "AT ONCE", "FAILURES", "BYTES", "WHICH"),
        (
            (
                each["wave"],
                each["total"],
                each["max_parallel"],
                each["max_failures"],
                each["bytes"],
                _some([one["node"] for one in each["nodes"]]),
            )
            for each in plan["waves"]
        ),
    )
    parts: list[RenderableType] = [sheet({name: plan[name] for name in fields}), "", waves]
    if plan["skipped"]:
        rows = ((each["node"], each["reason"], each["message"]) for each in plan["skipped"])
        parts += ["", table(("SKIPPED NODE", "REASON", "MESSAGE"), rows)]
    if plan["dependencies"]:
        needed = ((each["module_name"], each["version"], _some(each["nodes"])) for each in plan["dependencies"])
        parts += ["", table(("NEEDED MODULE", "VERSION", "BROUGHT TO"), needed)]
    return Group(*parts)


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
