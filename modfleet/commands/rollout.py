"""`modfleet rollout`: plan, start, watch and control rollouts."""

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from modfleet.client import ROLLOUTS, Document, Query, path_to
from modfleet.commands.completion import NodeName, RolloutUid, node_names
from modfleet.commands.parameters import builds
from modfleet.commands.request import rollout_request
from modfleet.commands.session import Session, Yes, is_a_person_there, open_session, printable, sheet, table
from modfleet.commands.tree import shards_in_a_tree
from modfleet.commands.watching import counted, reason_of, static_picture, title, watch_rollout
from modfleet.failure import EXIT_CODES, UsageError
from modfleet.watch import (
    FINAL,
    Snapshot,
    attempt_in_words,
    failed_nodes,
    failure_causes,
    outcomes_of,
    waits_in_a_line,
    whose,
    why_lines,
)

app = typer.Typer(no_args_is_help=True, help="Plan, start, watch and control rollouts.")

#: Nodes that the plan names for each wave.
NAMED = 8

Timeout = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="SECONDS", help="Stop watching after these seconds; the rollout continues. Default: no limit."
    ),
]
UntilTheEnd = Annotated[
    bool, typer.Option("--until-the-end", help="Keep watching while the rollout waits for a person.")
]
PlanHash = Annotated[
    str | None,
    typer.Option(
        metavar="HASH", help="Start only if the plan still has this hash, which `modfleet rollout plan` shows."
    ),
]
Remark = Annotated[
    str | None, typer.Option(help="Reason, for the log. Default: the command asks on a terminal, and fails elsewhere.")
]


@app.command()
@builds(session=open_session, request=rollout_request)
def plan(session: Session, request: dict[str, Any]) -> None:
    """Show the plan of a rollout without starting it: its waves, their nodes, and the skipped nodes."""
    session.show(session.api.post(f"{ROLLOUTS}/plan", request), _plan_in_words)


@app.command(epilog=EXIT_CODES)
@builds(session=open_session, request=rollout_request)
def start(
    session: Session,
    request: dict[str, Any],
    plan_hash: PlanHash = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Watch the rollout, as `modfleet rollout watch` does.")
    ] = False,
    timeout: Timeout = None,
    until_the_end: UntilTheEnd = False,
    yes: Yes = False,
) -> None:
    """Start a rollout: install a module on the nodes, or remove it.

    On a terminal, the command shows the plan and asks for confirmation. docs/reference/strategy.md explains the
    strategy.
    """
    if plan_hash is None and not yes and not session.as_json and is_a_person_there():
        shown = session.api.post(f"{ROLLOUTS}/plan", request)
        session.show(shown, _plan_in_words)
        session.confirm("Start this rollout?", yes=False)
        plan_hash = shown["plan_hash"]
    rollout = session.api.post(ROLLOUTS, request if plan_hash is None else {**request, "plan_hash": plan_hash})
    if watch:
        raise typer.Exit(watch_rollout(session, rollout["uid"], timeout=timeout, until_the_end=until_the_end))
    session.show(rollout, _phase_in_words)
    _suggest_watch(session, rollout)


@app.command(epilog=EXIT_CODES)
@builds(session=open_session)
def watch(uid: RolloutUid, session: Session, timeout: Timeout = None, until_the_end: UntilTheEnd = False) -> None:
    """Watch a rollout until it ends or waits for a person. A lost connection is retried.

    A terminal shows a bar for each wave, what the rollout waits for while no node is in progress, and the failures. Other output
    gets one line for each change. With --json,
    each change is one JSON document on one line; the last document has the final state.
    """
    raise typer.Exit(watch_rollout(session, uid, timeout=timeout, until_the_end=until_the_end))


@app.command()
@builds(session=open_session)
def status(uid: RolloutUid, session: Session) -> None:
    """Show a rollout: who started it, its progress, what it waits for, what stopped it, and its failed attempts.

    Failed attempts are shown even if they were retried or undone.
    """
    rollout = session.api.get(path_to(ROLLOUTS, uid))
    if session.as_json:
        session.print_json(rollout)
        return
    failures, causes = failed_nodes(session.api, rollout), failure_causes(session.api, rollout)
    is_over = rollout["phase"] in FINAL
    may_restart = rollout["activation"] in {"auto", "restart"}
    why = session.api.get(path_to(ROLLOUTS, uid, "why")) if may_restart or not is_over else {}
    waits = "" if is_over else waits_in_a_line(why)
    # The previous version of the control plane does not send the masters.
    notes = (*why.get("notes", ()), *(each["text"] for each in why.get("masters", ())))
    shown = Snapshot(rollout=rollout, failures=failures, causes=causes, waits=waits, notes=notes)
    session.say(static_picture(shown, session.console))


@app.command("list")
@builds(session=open_session)
def list_rollouts(
    session: Session,
    phase: Annotated[
        list[str] | None, typer.Option(help="Only rollouts in this phase, such as running. Repeatable.")
    ] = None,
    module: Annotated[str | None, typer.Option(help="Only rollouts of this module.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Number of rollouts to show, the newest first; 0 for all.")] = 50,
) -> None:
    """List the rollouts, the newest first."""
    query: dict[str, Query] = {"phase": phase} if phase else {}
    if module is not None:
        query["module_name"] = module
    session.show(list(session.api.every(ROLLOUTS, query, most=limit or None)), _in_a_table)


def _in_a_table(found: list[Document]) -> RenderableType:
    return table(
        ("UID", "ACTION", "MODULE", "VERSION", "PHASE", "DONE", "BY", "CREATED AT"),
        (
            (
                each["uid"],
                "roll back" if each["rollback_of"] else "fail back" if each.get("failback_of") else each["action"],
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
    """List the nodes of a rollout with their phases, in the order of the rollout.

    Each attempt and each undo has a line, with who requested it and who canceled it.
    """
    session.show(list(session.api.every(path_to(ROLLOUTS, uid, "nodes"))), _nodes_in_a_table)


def _nodes_in_a_table(found: list[Document]) -> RenderableType:
    names = ("node", "wave", "phase", "reason", "attempt", "seconds", "by", "message")
    lines = (
        {**each, "attempt": attempt_in_words(each), "by": whose(each)} for node in found for each in _attempts(node)
    )
    return table([name.upper() for name in names], ([each[name] for name in names] for each in lines))


def _attempts(node: Document) -> list[Document]:
    """Return the node as it was after each attempt, and as it is now."""
    outcomes = outcomes_of(node)
    return [*({**node, **each} for each in (outcomes[:-1] if node["finished_at"] else outcomes)), node]


@app.command()
@builds(session=open_session)
def pause(uid: RolloutUid, session: Session) -> None:
    """Pause a rollout: start no new operations. Nodes in progress finish."""
    _send_verb(session, uid, "pause")


@app.command()
@builds(session=open_session)
def resume(uid: RolloutUid, session: Session) -> None:
    """Resume a paused rollout. Failures so far no longer count."""
    _send_verb(session, uid, "resume")


@app.command()
@builds(session=open_session)
def promote(
    uid: RolloutUid,
    session: Session,
    wave: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The wave that has finished; the canary is wave 0. Default: the wave at whose gate the rollout waits.",
        ),
    ] = None,
) -> None:
    """Open the gate after a wave, so that the next wave starts; or accept that a one-way change cannot be rolled back."""
    _send_verb(session, uid, "promote", {} if wave is None else {"wave": wave})


@app.command()
@builds(session=open_session)
def abort(uid: RolloutUid, session: Session, yes: Yes = False) -> None:
    """Abort a rollout: start no new operations.

    Nodes in progress finish. If the rollout was started with --on-abort undo, they undo their work.
    """
    session.confirm(f"Abort rollout {uid}?", yes=yes)
    _send_verb(session, uid, "abort")


@app.command()
@builds(session=open_session)
def retry(uid: RolloutUid, session: Session) -> None:
    """Retry the failed nodes of a rollout. If it has ended, a new rollout does this."""
    rollout = _send_verb(session, uid, "retry")
    if rollout["phase"] == "paused":
        session.note(f"The nodes are tried again only after it is resumed. Run `modfleet rollout resume {uid}`.")


@app.command()
@builds(session=open_session)
def rollback(uid: RolloutUid, session: Session, yes: Yes = False) -> None:
    """Roll back a rollout: restore what each node had before. If it has ended, a new rollout does this."""
    session.confirm(f"Roll back rollout {uid}?", yes=yes)
    _send_verb(session, uid, "rollback")


@app.command()
@builds(session=open_session)
def failback(uid: RolloutUid, session: Session, yes: Yes = False) -> None:
    """Make each master that has failed over in a finished rollout the master again. A new rollout does this."""
    session.confirm(f"Fail back after rollout {uid}?", yes=yes)
    _send_verb(session, uid, "failback")


@app.command()
@builds(session=open_session)
def approve(uid: RolloutUid, session: Session, remark: Remark = None) -> None:
    """Approve a rollout that waits for approval. The person who started it cannot approve it."""
    _send_verb(session, uid, "approve", {"remark": _reason(remark)})


@app.command()
@builds(session=open_session)
def reject(uid: RolloutUid, session: Session, remark: Remark = None) -> None:
    """Reject a rollout that waits for approval. The rollout ends without starting."""
    _send_verb(session, uid, "reject", {"remark": _reason(remark)})


def _reason(remark: str | None) -> str:
    """Return the remark, or ask for it. Raises: `UsageError` without a terminal."""
    if remark is None and not is_a_person_there():
        raise UsageError("Give a reason, for the log: --remark TEXT.")
    return typer.prompt("Reason", err=True) if remark is None else remark


@app.command()
@builds(session=open_session)
def cancel(
    uid: RolloutUid,
    node: NodeName,
    session: Session,
    force: Annotated[bool, typer.Option("--force", help="Cancel at once, without the node's answer.")] = False,
) -> None:
    """Cancel a rollout on one node. A node in progress is asked to undo its work."""
    operation = session.api.post(path_to(ROLLOUTS, uid, "nodes", node, "cancel"), {"force": force})
    session.show(operation, lambda each: printable(f"{each['node']}: {reason_of(each)}"))


@app.command()
@builds(session=open_session)
def why(
    uid: RolloutUid,
    session: Session,
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Explain this node only.", autocompletion=node_names)
    ] = None,
) -> None:
    """Explain why a rollout, or one of its nodes, is in its phase, and what it waits for."""
    below = () if node is None else ("nodes", node)
    session.show(session.api.get(path_to(ROLLOUTS, uid, *below, "why")), _why_in_words)


@app.command()
@builds(session=open_session)
def report(uid: RolloutUid, session: Session) -> None:
    """Print the full report of a rollout, for a change ticket: CSV, or JSON with --json."""
    path = path_to(ROLLOUTS, uid, "report")
    if session.as_json:
        session.print_json(session.api.get(path, format="json"))
    else:
        session.print_file(session.api.text(path, format="csv"))


def _send_verb(session: Session, uid: str, verb: str, body: Document = None) -> Document:
    rollout: Document = session.api.post(path_to(ROLLOUTS, uid, verb), body)
    session.show(rollout, _phase_in_words)
    if left := rollout.get("left_alone", {}).get("text"):
        session.note(printable(left))
    if rollout["uid"] != uid:
        _suggest_watch(session, rollout)
    return rollout


def _suggest_watch(session: Session, rollout: Document) -> None:
    session.note(f"Watch it with `modfleet rollout watch {rollout['uid']}`.")


def _phase_in_words(rollout: Document) -> str:
    return printable(f"{title(rollout)} is {rollout['phase']}, {counted(rollout['progress'])}")


def _why_in_words(answer: Document) -> RenderableType:
    parts: list[RenderableType] = [Text(printable(each)) for each in why_lines(answer)]
    columns = ("POSITION", "RECORDED AT", "ACTOR", "TYPE")
    rows = ((each["position"], each["recorded_at"], each["actor"], each["type"]) for each in answer["events"])
    return Group(*parts, "", table(columns, rows)) if answer["events"] else Group(*parts)


def _plan_in_words(plan: Document) -> RenderableType:
    fields = ("action", "module_name", "version", "activation", "total", "bytes", "predicted_seconds", "plan_hash")
    waves = table(
        ("WAVE", "NODES", "MAX PARALLEL", "MAX FAILURES", "BYTES", "NAMES"),
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
    if restarts := [each for wave in plan["waves"] for each in wave["nodes"] if each.get("restart")]:
        pause = f", writes wait for at most {plan['strategy']['pause_seconds']:g} s"
        words = ((each["node"], each["restart"]) for each in restarts)
        away = (
            (
                node,
                f"{restart['failover']}{pause}" if restart["failover"] else "none",
                f"about {restart['away_seconds']:.0f} s",
                "expected" if restart["full_sync_expected"] else "no",
            )
            for node, restart in words
        )
        parts += ["", table(("RESTARTED", "FAILOVER BEFORE", "AWAY", "FULL SYNC AFTER"), away)]
        if any(each["restart"]["failover"] for each in restarts):
            parts += ["", Text(_failback_in_words(plan))]
    if irreversible := plan.get("irreversible"):
        parts += ["", Text("No rollback undoes this:"), *(Text(printable(f"  {each}")) for each in irreversible)]
    if plan["skipped"]:
        rows = ((each["node"], each["reason"], each["message"]) for each in plan["skipped"])
        parts += ["", table(("SKIPPED NODE", "REASON", "MESSAGE"), rows)]
    # The previous version of the control plane does not send the warnings.
    if warnings := plan.get("warnings"):
        rows = ((each["node"], each["reason"], each["message"]) for each in warnings)
        parts += ["", table(("WARNING FOR", "REASON", "MESSAGE"), rows)]
    # Nor does it send the next three.
    if shards := plan.get("shards"):
        parts += ["", *_shards_in_trees(shards[:NAMED], plan["shard_count"])]
    if learned := plan.get("learned"):
        parts += ["", Text(printable(" ".join(["Scratch servers:", *learned["in_words"]])))]
    if lost := plan.get("lost_options"):
        parts += ["", table(("LOSES OPTIONS", "NAMES"), ((each["node"], ", ".join(each["options"])) for each in lost))]
    if plan["dependencies"]:
        needed = ((each["module_name"], each["version"], _some(each["nodes"])) for each in plan["dependencies"])
        parts += ["", table(("NEEDED MODULE", "VERSION", "INSTALL ON"), needed)]
    return Group(*parts)


def _failback_in_words(plan: Document) -> str:
    if plan.get("failback"):
        return "After a success, a new rollout makes each master that has failed over the master again."
    return "A master that has failed over stays a replica. With --failback, it becomes the master again."


def _shards_in_trees(shards: list[Document], count: int) -> list[RenderableType]:
    nodes = [node for shard in shards for node in shard["nodes"]]
    # Shards may share an ignored replica.
    ignored = {each["address"]: each for shard in shards for each in shard["ignored_replicas"]}
    more = count - len(shards)
    tree = shards_in_a_tree(nodes, list(ignored.values()))
    return [tree, Text(f"and {more} more shard{'s' if more > 1 else ''}")] if more else [tree]


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
