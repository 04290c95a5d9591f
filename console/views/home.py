"""The home page: what needs attention, rollouts in progress, and the modules of each node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.http import urlencode

from accounts.roles import Permission
from console.page import answer, page
from rollout.models import Node, NodeModule, Rollout
from rollout.projections.node_modules import ModuleState
from rollout.queries import dashboard
from rollout.queries.dashboard import MatrixFilter, ModuleOnNodes
from rollout.queries.freeze import freeze_document
from rollout.queries.rollouts import decision_needed, unfinished_rollout_rows
from ui.cells import list_url, page_url

#: Rows of the matrix on a page, and rollouts with a bar.
NODES = 50
ROLLOUTS = 10
_BAD_STATES = {
    ModuleState.ERROR: "with a failed operation",
    ModuleState.MISSING: "with a missing module",
    ModuleState.DRIFTED: "with a drifted module",
}
_BAD_PHASES = {
    "degraded": "no operation is released until the server can be used",
    "offline": "nothing heard for 3 heartbeat intervals",
    "pending": "not accepted yet, or no heartbeat yet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An entry of "Needs attention"; `kind` is the phase or state on its badge."""

    kind: str
    text: str
    url: str


def home(request: HttpRequest) -> TemplateResponse:
    """Return the home page. The admin site asks only for a login here, so any role may see it."""
    modules = dashboard.modules_on_nodes()
    shown = _filter(request.GET)
    nodes: Page[Node] = Paginator(dashboard.matrix_nodes(shown), NODES).get_page(request.GET.get("page"))
    return answer(
        request,
        "console/home.html",
        title="Overview",
        **_state(modules),
        matrix=_matrix(list(nodes.object_list), shown, modules),
        nodes=nodes,
        filter=shown,
        phases=("online", "degraded", "offline", "draining", "pending"),
        states=list(ModuleState),
        query=urlencode(_filter_fields(request.GET)),
    )


@page(sees=Permission.VIEW_CLUSTER_MODULES)
def live(request: HttpRequest) -> HttpResponseBase:
    """Return the part of the home page that refreshes itself."""
    return TemplateResponse(request, "console/dashboard.html", _state(dashboard.modules_on_nodes()))


def _state(modules: Sequence[ModuleOnNodes]) -> dict[str, Any]:
    rollouts = unfinished_rollout_rows()
    phases = dashboard.nodes_by_phase()
    return {
        "phases_of_nodes": phases,
        "fleet_size": sum(phases.values()),
        "tasks": _tasks(rollouts, modules, phases),
        "rollouts": rollouts[:ROLLOUTS],
        "more_rollouts": max(0, len(rollouts) - ROLLOUTS),
        "freeze": freeze_document(),
        "modules": [_with_links(each) for each in modules],
        "differing": sum(
            count for each in modules for state, count in each.nodes.items() if state != ModuleState.IN_SYNC
        ),
    }


def _tasks(rollouts: Sequence[Rollout], modules: Sequence[ModuleOnNodes], phases: Mapping[str, int]) -> list[Task]:
    waiting = [(each, words) for each in rollouts if (words := decision_needed(each))]
    tasks = [
        Task(
            kind=row.phase if row.phase != "running" else "gated",
            text=f"{row.title}: {words}",
            url=page_url("rollout_rollout", row.uid),
        )
        for row, words in waiting[:ROLLOUTS]
    ]
    for state, words in _BAD_STATES.items():
        for each in modules:
            if count := each.nodes.get(state):
                of_module = {"module_name": each.module_name, "version": each.version, "state": state}
                text = f"{_nodes(count)} {words}: {each.module_name} {each.version}"
                tasks.append(Task(kind=state, text=text, url=list_url("rollout_nodemodule", of_module)))
    for phase, words in _BAD_PHASES.items():
        if count := phases.get(phase):
            text = f"{_nodes(count)} {phase}: {words}"
            tasks.append(Task(kind=phase, text=text, url=list_url("rollout_node", {"phase": phase})))
    return tasks


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count:,} nodes"


def _with_links(module: ModuleOnNodes) -> dict[str, object]:
    of_module = {"module_name": module.module_name, "version": module.version}
    return {
        "module": module,
        "states": [
            (state, count, list_url("rollout_nodemodule", {**of_module, "state": state}))
            for state, count in module.nodes.items()
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    modules: Sequence[str]
    #: Modules that have a page: the filter may name a module that does not exist.
    known: frozenset[str]
    #: Number of modules without a column.
    more: int
    rows: Sequence[tuple[Node, Sequence[Sequence[NodeModule]]]]


def _matrix(nodes: Sequence[Node], shown: MatrixFilter, modules: Sequence[ModuleOnNodes]) -> Matrix:
    """Return the matrix. Its columns are the modules that differ on the most nodes, in alphabetical order."""
    if shown.module_name:
        names = [shown.module_name]
    else:
        differing = {each.module_name: 0 for each in modules}
        for each in modules:
            differing[each.module_name] += each.total - each.nodes.get(ModuleState.IN_SYNC, 0)
        names = sorted(differing, key=lambda name: (-differing[name], name))
    columns = sorted(names[: dashboard.MOST_MODULES])
    cells = dashboard.matrix_cells([each.name for each in nodes], columns)
    rows = [(each, [cells.get((each.name, name), []) for name in columns]) for each in nodes]
    known = frozenset(each.module_name for each in modules)
    return Matrix(modules=columns, known=known, more=len(names) - len(columns), rows=rows)


def _filter(query: Mapping[str, str]) -> MatrixFilter:
    return MatrixFilter(**_filter_fields(query))


def _filter_fields(query: Mapping[str, str]) -> dict[str, str]:
    return {name: query[name] for name in ("name", "phase", "state", "module_name") if query.get(name)}
