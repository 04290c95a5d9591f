"""A service that reads rows and appends says under which condition: else another decision makes stale what it has read.

The code is read as text: which function calls which, and which of them reads rows or appends. A function is listed if
it brings the two together, by itself or through what it calls, and the append names no condition.
"""

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
APPS = ("accounts", "api", "artifacts_app", "modules_app", "operations", "rollout", "webhooks")
#: Folds of the log; and what answers with rows after it has called one service.
LEFT_OUT = {
    "migrations",
    "projections",
    "projections.py",
    "models",
    "models.py",
    "agent",
    "views",
    "views.py",
    "console",
}
APPENDS = {"eventstore.append", "eventstore.transact"}

UNDER_THE_LOCK = (
    "appends first, which takes the lock to the commit; what must hold for all accounts is checked after it"
)
OWN_ROW = "reads the row of its own stream, after the stream: each change of the row appends there"
READ_AGAIN = "reads in order to refuse early; what it calls reads it again"
WHOM_TO_ADVANCE = "reads only which rollouts to advance next"
WHAT_TO_LOAD = "reads only which streams may have to change; they decide"
STEPS = "one step after the other, each of which is looked at by itself"
NO_RELEASE = "only a release reads rows, the inventory, and it releases nothing"
VERIFIED = "reads the keys of the nodes; a message that came before a key ended may be recorded after it"
NO_STREAM = "reads when the node was heard, which is in no stream, and what it forgets, which those streams decide"
VALID_THEN = "the key that has signed it was valid when it came; a node that was revoked since is refused"
PLACES = "reads after its append, in the same transaction: the places of nodes, which are in no stream"
ITS_ATTEMPT = "names the attempt that its rows show; the placement refuses any other"

#: Each with the reason why no other decision can make it wrong.
ACCEPTED = {
    "accounts.services._create_user": UNDER_THE_LOCK,
    "accounts.services._update_user": UNDER_THE_LOCK,
    "accounts.services.delete_user.attempt": UNDER_THE_LOCK,
    "accounts.services.bootstrap_admin": "a second first admin is refused, for its name is taken",
    "accounts.services.ensure_admin": READ_AGAIN,
    "accounts.services.update_cluster_settings": OWN_ROW,
    "accounts.services.update_user": READ_AGAIN,
    "rollout.process.timeouts._end_all.append_ends": NO_RELEASE,
    "rollout.process.timeouts.end_operations_of_decommissioned_nodes": WHAT_TO_LOAD,
    "rollout.process.timeouts.end_overdue_operations": ITS_ATTEMPT,
    "rollout.delivery.commands.commands_of": ITS_ATTEMPT,
    "rollout.delivery.outbox._publish": ITS_ATTEMPT,
    "rollout.delivery.outbox.publish_due": ITS_ATTEMPT,
    "rollout.delivery.ingestion.reports._record_all": WHAT_TO_LOAD,
    "rollout.delivery.ingestion.heartbeats._record_all": WHAT_TO_LOAD,
    "rollout.delivery.ingestion.heartbeats.record_heartbeats": WHOM_TO_ADVANCE,
    "rollout.delivery.ingestion.reports._reject": OWN_ROW,
    "rollout.delivery.ingestion.reports.record_reports": VERIFIED,
    "rollout.management.commands.relay.Command.handle": STEPS,
    "rollout.services.enrolment._enrol": NO_STREAM,
    "rollout.services.enrolment.add_key": VALID_THEN,
    "rollout.services.nodes.activate_node": WHOM_TO_ADVANCE,
    "rollout.services.nodes.forget_node": PLACES,
    "rollout.services.nodes.set_address": PLACES,
    "rollout.services.ignored_replicas._decide": PLACES,
    "rollout.services.ignored_replicas.ignore_replica": "a node that has the address is matched all the same",
    "rollout.services.rollouts._cancel": NO_RELEASE,
    "rollout.services.rollouts._resume": "reads after its stream; reports only add failures, and what takes them back appends there",
    "rollout.services.rollouts.approve_rollout": "who has started a rollout never changes",
    "rollout.services.rollouts.cancel_node": "reads in order to refuse early; the placement decides",
    "rollout.services.freeze.thaw_fleet": WHOM_TO_ADVANCE,
    "webhooks.deliver.record_outcome": READ_AGAIN,
    "webhooks.services.delete_webhook": OWN_ROW,
    "webhooks.services.disable_failing_webhook": OWN_ROW,
    "webhooks.services.request_test": OWN_ROW,
    "webhooks.services.update_webhook": OWN_ROW,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """`calls`: names of what it calls or hands on, as far as imports tell. `bare`: appends without a condition, by
    itself; `guarded`: with one."""

    calls: frozenset[str]
    reads: bool
    bare: bool
    guarded: bool


def function_of(node: ast.AST, names: dict[str, str]) -> Function:
    own = list(_own(node))
    calls = [each for each in own if isinstance(each, ast.Call)]
    appends = [each for each in calls if _resolved(each.func, names) in APPENDS]
    guarded = [each for each in appends if any(keyword.arg == "unless" for keyword in each.keywords)]
    return Function(
        calls=frozenset(_resolved(each, names) for each in own if isinstance(each, ast.Name | ast.Attribute)),
        reads=any(isinstance(each, ast.Attribute) and each.attr == "objects" for each in own),
        bare=len(guarded) < len(appends),
        guarded=bool(guarded),
    )


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What is written in the function, also in its lambdas, but not in functions inside of it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield child
            yield from _own(child)


def _resolved(node: ast.expr, names: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=value, attr=attribute):
            return f"{_resolved(value, names)}.{attribute}"
        case _:
            return ""


def functions_of(module: str, text: str) -> dict[str, Function]:
    """By full name; those of a class below its name, and those inside of another function below that."""
    tree = ast.parse(text)
    names = {
        alias.asname or alias.name: f"{each.module}.{alias.name}"
        for each in ast.walk(tree)
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    return dict(_functions(module, tree, names))


def _functions(prefix: str, node: ast.AST, names: dict[str, str]) -> Iterator[tuple[str, Function]]:
    inside = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.FunctionDef | ast.ClassDef)]
    known = names if isinstance(node, ast.ClassDef) else names | {each.name: f"{prefix}.{each.name}" for each in inside}
    for each in inside:
        name = f"{prefix}.{each.name}"
        if isinstance(each, ast.ClassDef):
            yield from _functions(name, each, known | {"self": name})
        else:
            yield name, function_of(each, known | {inner.name: f"{name}.{inner.name}" for inner in _named_inside(each)})
            yield from _functions(name, each, known)


def _named_inside(node: ast.FunctionDef) -> list[ast.FunctionDef]:
    return [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.FunctionDef)]


def code() -> dict[str, str]:
    """The text of each module that may decide something."""
    paths = [path.relative_to(ROOT) for app in APPS for path in sorted((ROOT / app).rglob("*.py"))]
    return {
        ".".join(path.with_suffix("").parts): (ROOT / path).read_text()
        for path in paths
        if not set(path.parts) & LEFT_OUT
    }


def together(modules: dict[str, str]) -> set[str]:
    """Functions in which rows that were read meet an append without a condition."""
    functions: dict[str, Function] = {}
    for module, text in modules.items():
        functions |= functions_of(module, text)
    bare = _reaching(functions, {name for name, each in functions.items() if each.bare})
    guarded = _reaching(functions, {name for name, each in functions.items() if each.guarded})
    # What a function reads that appends is its own business: it is looked at by itself.
    reads = _reaching(functions, {name for name, each in functions.items() if each.reads}, not_through=bare | guarded)
    return bare & reads


def _reaching(
    functions: dict[str, Function], goals: set[str], *, not_through: Collection[str] = frozenset()
) -> set[str]:
    """The goals, and what calls them, directly or not."""
    found = set(goals)
    while True:
        passable = found - set(not_through)
        more = {name for name, each in functions.items() if name not in found and each.calls & passable}
        if not more:
            return found
        found |= more


def test_rows_that_were_read_are_a_condition_of_the_append():
    assert together(code()) - ACCEPTED.keys() == set()


def test_what_is_accepted_is_still_there():
    assert ACCEPTED.keys() - together(code()) == set()


GUARDED = """
from eventstore import append, head
from rollout import queries

def delete(name):
    after = head()
    if queries.users(name):
        raise ValueError
    append(name, unless=[after])
"""
QUERIES = """
from rollout.models import Node

def users(name):
    return list(Node.objects.filter(name=name))
"""


def test_it_finds_an_append_without_a_condition_however_far_the_rows_are():
    bare = GUARDED.replace(", unless=[after]", "")
    through = GUARDED.replace("append(name, unless=[after])", "record(name)") + "def record(name):\n    append(name)\n"
    assert together({"rollout.services": GUARDED, "rollout.queries": QUERIES}) == set()
    for text in (bare, through):
        assert together({"rollout.services": text, "rollout.queries": QUERIES}) == {"rollout.services.delete"}
