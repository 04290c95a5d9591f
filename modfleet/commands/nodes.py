"""`modfleet nodes`: show and manage the nodes of the fleet."""

import re
import shlex
from typing import Annotated, Any

import typer

from modfleet.client import IGNORED_REPLICAS, JOIN_TOKENS, NODES, Document, Query, path_to
from modfleet.commands.completion import NodeName
from modfleet.commands.node_tables import (
    by_urgency,
    node_in_words,
    nodes_in_a_table,
    operations_in_a_table,
    tokens_in_a_table,
)
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, Yes, in_a_line, open_session, printable
from modfleet.commands.tree import shards_in_a_tree
from modfleet.failure import UsageError

app = typer.Typer(invoke_without_command=True)

#: Columns of a terminal that has room for all that `modfleet nodes` shows.
WIDE = 160
NO_MATCH = "No node matches. `modfleet nodes` lists all nodes, `modfleet nodes --tree` their shards."


@app.callback()
@builds(session=open_session)
def nodes(
    ctx: typer.Context,
    session: Session,
    tree: Annotated[
        bool, typer.Option("--tree", help="Show the shards: each master with its replicas, and the ignored replicas.")
    ] = False,
) -> None:
    """Show and manage the nodes of the fleet. Without a command, list them."""
    if ctx.invoked_subcommand is not None:
        if tree:
            raise UsageError("--tree goes without a command: modfleet nodes --tree")
    elif tree:
        _show_tree(session)
    else:
        _show_all(session, {})


@app.command("list")
@builds(session=open_session)
def list_nodes(
    session: Session,
    phase: Annotated[
        str | None, typer.Option(help="Only nodes in this phase: pending, online, degraded, offline or draining.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only nodes with this label. Repeatable: all labels must match."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Only nodes of this shard, as `modfleet nodes show` names it.")
    ] = None,
) -> None:
    """List the nodes and their modules: first the degraded, pending and offline nodes."""
    _show_all(session, labels_of(label or []), phase, shard)


def _show_tree(session: Session) -> None:
    found = {"nodes": list(session.api.every(NODES)), "ignored_replicas": list(session.api.every(IGNORED_REPLICAS))}
    session.show(found, lambda each: shards_in_a_tree(each["nodes"], each["ignored_replicas"]))


def _show_all(session: Session, labels: dict[str, str], phase: str | None = None, shard: str | None = None) -> None:
    query: dict[str, Query] = {"label": [f"{name}={value}" for name, value in labels.items()]} if labels else {}
    query |= {name: value for name, value in (("phase", phase), ("shard", shard)) if value is not None}
    found = by_urgency(
        each
        for each in session.api.every(NODES, query)
        if phase in {None, each["phase"]} and labels.items() <= each["labels"].items()
    )
    console = session.console
    is_narrow = console.is_terminal and console.width < WIDE
    session.show(found, lambda each: nodes_in_a_table(each, is_narrow=is_narrow) if each or not query else NO_MATCH)


@app.command()
@builds(session=open_session)
def show(name: NodeName, session: Session) -> None:
    """Show one node: its modules, the state of its server, and the results of its doctor."""
    session.show(session.api.get(path_to(NODES, name)), node_in_words)


@app.command("history")
@builds(session=open_session)
def list_operations(
    name: NodeName,
    session: Session,
    module: Annotated[str | None, typer.Option(help="Only operations on this module.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Number of operations to show, the newest first; 0 for all.")] = 50,
) -> None:
    """List the operations on a node, the newest first: each attempt and undo, who requested it and who canceled it."""
    query: dict[str, Query] = {} if module is None else {"module_name": module}
    found = session.api.every(path_to(NODES, name, "operations"), query, most=limit or None)
    session.show(list(found), operations_in_a_table)


@app.command()
@builds(session=open_session)
def add(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="NODE", help="Name of the new node.")] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="For all nodes whose names match, instead of NODE: 'cache-*'."),
    ] = None,
    uses: Annotated[int, typer.Option(min=1, help="With --group: how many nodes may use the token.")] = 1,
    auto_accept: Annotated[
        bool,
        typer.Option("--auto-accept", help="With --group: the nodes join without `modfleet nodes accept`."),
    ] = False,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Label that each node gets. Repeatable.")
    ] = None,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="How long the token can be used: 30m, 1h or 7d, at most 366d.")
    ] = "1h",
    observe: Annotated[
        bool, typer.Option("--observe", help="The agent changes nothing on its host and its server.")
    ] = False,
) -> None:
    """Add a node: create a join token, and print the command to run on the node's host.

    The token can be used once. With --group, several nodes can use it.
    """
    if (name is None) == (group is None):
        raise UsageError("Give the name of the node, or --group with a pattern of names.")
    if name is not None and (uses != 1 or auto_accept):
        raise UsageError("--uses and --auto-accept need --group.")
    target = {"node": name} if group is None else {"pattern": group, "uses": uses, "auto_accept": auto_accept}
    options = {"labels": labels_of(label or []), "expires_in_seconds": seconds_of(expires), "observe": observe}
    created = session.api.post(JOIN_TOKENS, {**target, **options})
    if not session.as_json:
        where = f"the host of {name}" if group is None else f"each host (at most {uses})"
        session.note(f"Run this on {where} as root, until {created['expires_at']}. The token is shown only now.")
        session.note("Replace the URL after --server if the server listens elsewhere.")
        if created["note"]:
            session.note(created["note"])
    session.show(created, lambda each: each["command"])
    if group is not None and not auto_accept and not session.as_json:
        session.note("Then accept each node with the command that its installation prints.")


@app.command()
@builds(session=open_session)
def tokens(session: Session) -> None:
    """List the join tokens, the newest first."""
    session.show(list(session.api.every(JOIN_TOKENS)), tokens_in_a_table)


@app.command("revoke-token")
@builds(session=open_session)
def revoke_token(
    token: Annotated[str, typer.Argument(metavar="ID", help="ID of the token, as `modfleet nodes tokens` shows it.")],
    session: Session,
) -> None:
    """Revoke a join token: no node can use it any more. Nodes that have used it stay."""
    session.show(
        session.api.delete(path_to(JOIN_TOKENS, token)), lambda each: f"the token {each['id']} is {each['state']}"
    )


@app.command()
@builds(session=open_session)
def accept(
    name: NodeName,
    session: Session,
    key: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Id of the key that the node must have. Default: the key that is shown."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Accept a pending node, so that it becomes part of the fleet."""
    shown = key or next(iter(session.api.get(path_to(NODES, name))["keys"]), "")
    if key is None:
        question = f"Accept {name} with the key {shown}? The installer printed the key on the node's host."
        session.confirm(question, yes=yes)
    session.show(
        session.api.post(path_to(NODES, name, "accept"), {"key": shown}), lambda each: f"{each['name']} is accepted"
    )


@app.command()
@builds(session=open_session)
def revoke(name: NodeName, session: Session, yes: Yes = False) -> None:
    """Revoke the identity of a node: its messages, its access to the broker and its links are refused until it joins again."""
    session.confirm(f"Revoke the identity of {name}? It is offline until it joins again with a new token.", yes=yes)
    session.show(session.api.post(path_to(NODES, name, "revoke")), lambda each: f"{each['name']} is revoked")


@app.command()
@builds(session=open_session)
def rekey(name: NodeName, session: Session) -> None:
    """Ask a node to replace its key and its broker password. It stays online."""
    session.show(
        session.api.post(path_to(NODES, name, "rekey")), lambda each: f"{each['name']} is asked to replace its key"
    )


@app.command()
@builds(session=open_session)
def drain(name: NodeName, session: Session) -> None:
    """Drain a node: it keeps its modules and gets nothing new until `modfleet nodes activate`."""
    _show_phase(session, session.api.post(path_to(NODES, name, "drain")))


@app.command()
@builds(session=open_session)
def activate(name: NodeName, session: Session) -> None:
    """Activate a draining node, so that rollouts use it again."""
    _show_phase(session, session.api.post(path_to(NODES, name, "activate")))


@app.command()
@builds(session=open_session)
def forget(name: NodeName, session: Session, yes: Yes = False) -> None:
    """Forget what a node reported about itself. It is shown as offline until its next heartbeat. The server is not changed."""
    session.confirm(f"Forget what {name} reported? It is offline until its next heartbeat.", yes=yes)
    _show_phase(session, session.api.post(path_to(NODES, name, "forget")))


@app.command()
@builds(session=open_session)
def decommission(name: NodeName, session: Session, yes: Yes = False) -> None:
    """Decommission a node: remove it from the fleet. It joins again when its agent restarts."""
    session.confirm(f"Decommission {name}?", yes=yes)
    _show_phase(session, session.api.post(path_to(NODES, name, "decommission")))


@app.command()
@builds(session=open_session)
def label(
    name: NodeName,
    session: Session,
    labels: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="Labels to set.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all labels that operators gave the node.")] = False,
) -> None:
    """Set the labels of a node. They replace all labels that operators gave it before."""
    if bool(labels) == clear:
        raise UsageError("Give the labels as NAME=VALUE, or --clear to remove them.")
    changed = session.api.patch(path_to(NODES, name), {"labels": labels_of(labels or [])})
    session.show(changed, _labels_in_words)


@app.command("set")
@builds(session=open_session)
def set_address(
    name: NodeName,
    session: Session,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address by which other servers know the node's server.")
    ] = None,
    no_address: Annotated[
        bool, typer.Option("--no-address", help="Remove the address: those that the node reports count again.")
    ] = False,
) -> None:
    """Set the address of a node's server, if the node does not report the one that its master and its replicas use."""
    if (address is None) != no_address:
        raise UsageError("Give --address HOST:PORT, or --no-address to remove the address.")
    changed = session.api.patch(path_to(NODES, name), {"address": address or ""})
    session.show(
        changed,
        lambda each: (
            f"the address of {each['name']} is {each['address'] or 'as the node reports it'}, its shard is {each['shard']}"
        ),
    )


@app.command("ignore-replica")
@builds(session=open_session)
def ignore_replica(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="HOST:PORT of the replica, as `modfleet nodes --tree` shows it.")
    ],
    session: Session,
    reason: Annotated[str, typer.Option(metavar="REASON", help="Why the replica may stay without the modules.")],
) -> None:
    """Ignore a replica without an agent: its master gets modules although the replica does not.

    A replica without a module drops the writes of the module's commands.
    """
    created = session.api.post(IGNORED_REPLICAS, {"address": address, "reason": reason})
    session.show(created, _ignored_in_words)
    if created["reason"] != reason.strip():
        again = f"modfleet nodes unignore-replica {shlex.quote(created['address'])}"
        session.note(f"It was ignored before, so the first reason stays. To change it, run `{again}` first.")


def _ignored_in_words(replica: Document) -> str:
    masters = ", ".join(replica["masters"])
    of_them = f"of {masters} " if masters else ""
    now = "" if masters else " (no node has it now)"
    return f"the replica {replica['address']} {of_them}is ignored{now}: {printable(replica['reason'])}"


@app.command("unignore-replica")
@builds(session=open_session)
def unignore_replica(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="Address of the replica, as `modfleet nodes --tree` shows it.")
    ],
    session: Session,
) -> None:
    """Stop ignoring a replica: its master gets no module while the replica has no agent."""
    session.show(
        session.api.delete(path_to(IGNORED_REPLICAS, address)), lambda _: f"the replica {address} is not ignored"
    )


def _labels_in_words(node: Document) -> str:
    labels = in_a_line(node["labels"])
    return f"the labels of {node['name']} are {labels}" if labels else f"{node['name']} has no labels"


def labels_of(pairs: list[str]) -> dict[str, str]:
    """Return the values by name. Raises: `UsageError`."""
    split = [each.partition("=") for each in pairs]
    if wrong := [pair for pair, (name, equals, _) in zip(pairs, split, strict=True) if not (name and equals)]:
        raise UsageError(f"{wrong[0]} is not a label. Write it as NAME=VALUE.")
    return {name: value for name, _, value in split}


def seconds_of(text: str) -> int:
    """Return the seconds that a time such as 30m means. Raises: `UsageError`."""
    if not (parts := re.fullmatch("([0-9]{1,9})([smhd])", text)):
        raise UsageError(f"{text} is not a time. Write it as 30m, 1h or 7d.")
    seconds = int(parts[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[parts[2]]
    if not 60 <= seconds <= 366 * 86_400:
        raise UsageError(f"{text} is not between 1m and 366d.")
    return seconds


def _show_phase(session: Session, node: Any) -> None:
    session.show(node, lambda each: f"{each['name']} is {each['phase']}")
