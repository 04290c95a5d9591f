"""The list of modules, and a module's page: its versions, builds, nodes and rollouts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils.http import urlencode

from accounts.roles import Permission
from artifacts_app.selectors import builds_of, uploaded_versions
from console.page import Crumb, answer, page
from modules_app.selectors import document_of, modules_named
from modules_app.selectors import modules as module_objects
from rollout.projections.node_modules import ModuleState
from rollout.queries import dashboard
from rollout.queries.dashboard import ModuleOnNodes
from rollout.queries.learned import build_facts, learned_document
from rollout.queries.rollouts import newest_rollouts_of
from ui.cells import list_url

NAMES = 100
ROLLOUTS = 10
#: How many versions a module's page shows. The lists have all.
VERSIONS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModule:
    """One row of the list of modules."""

    name: str
    versions: Sequence[int]
    newest_packaged: int | None
    nodes: int
    differing: int


@page(sees=Permission.VIEW_CLUSTER_MODULES)
def modules(request: HttpRequest) -> HttpResponseBase:
    """Return the list of modules that have a module object or a package, or are on a node."""
    search = request.GET.get("q", "").strip()
    shown = Paginator([each for each in _named() if search.lower() in each.name.lower()], NAMES)
    return answer(
        request,
        "console/modules.html",
        title="Modules",
        about="A module has versions. Each version has a module object, which describes it, and a build for each "
        "platform. Roll out a version to install it on nodes.",
        shown=shown.get_page(request.GET.get("page")),
        search=search,
        query=urlencode({"q": search}) if search else "",
    )


def _named() -> list[NamedModule]:
    versions: dict[str, set[int]] = {}
    for name, version in module_objects().values_list("module_name", "version"):
        versions.setdefault(name, set()).add(version)
    packaged: dict[str, int] = {}
    for name, version in uploaded_versions()[: NAMES * VERSIONS]:
        versions.setdefault(name, set()).add(version)
        packaged[name] = version
    nodes: dict[str, list[ModuleOnNodes]] = {}
    for each in dashboard.modules_on_nodes():
        versions.setdefault(each.module_name, set()).add(each.version)
        nodes.setdefault(each.module_name, []).append(each)
    return [
        NamedModule(
            name=name,
            versions=sorted(versions[name], reverse=True),
            newest_packaged=packaged.get(name),
            nodes=max((each.total for each in nodes.get(name, [])), default=0),
            differing=sum(each.total - each.nodes.get(ModuleState.IN_SYNC, 0) for each in nodes.get(name, [])),
        )
        for name in sorted(versions)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    number: int
    #: Uid of the module object; empty if there is none.
    uid: str
    document: Mapping[str, Any]
    registered_by: str
    builds: Sequence[Any]
    #: What scratch servers have shown about the builds, as `learned_document` returns it.
    learned: Mapping[str, Any]
    #: State, number of nodes, and the URL of their list.
    nodes: Sequence[tuple[str, int, str]]


@page(sees=Permission.VIEW_CLUSTER_MODULES)
def module(request: HttpRequest, name: str) -> HttpResponseBase:
    """Return the module's page."""
    versions = _versions(name)
    if not versions:
        raise Http404
    packaged = [each.number for each in versions if each.builds]
    return answer(
        request,
        "console/module.html",
        title=name,
        trail=[Crumb(text="Modules", url=reverse("admin:modules"))],
        name=name,
        versions=versions[:VERSIONS],
        more_versions=max(0, len(versions) - VERSIONS),
        newest=packaged[0] if packaged else None,
        rollouts=newest_rollouts_of(name, limit=ROLLOUTS),
        all_rollouts=list_url("rollout_rollout", {"module_name": name}),
        matrix_query=urlencode({"module_name": name}),
    )


def _versions(name: str) -> list[Version]:
    objects = {each.version: each for each in modules_named(name)}
    on_nodes = {each.version: each for each in dashboard.modules_on_nodes(name)}
    builds: dict[int, list[Any]] = {}
    for each in builds_of(name):
        builds.setdefault(each.version, []).append(each)
    facts = build_facts(each.content_sha256 for version in builds.values() for each in version)
    return [
        Version(
            number=number,
            uid=objects[number].uid if number in objects else "",
            document=document_of(objects[number]) if number in objects else {},
            registered_by=objects[number].registered_by if number in objects else "",
            builds=builds.get(number, []),
            learned=learned_document([each.content_sha256 for each in builds.get(number, [])], facts),
            nodes=[
                (state, count, list_url("rollout_nodemodule", {"module_name": name, "version": number, "state": state}))
                for state, count in (on_nodes[number].nodes.items() if number in on_nodes else ())
            ],
        )
        for number in sorted({*objects, *builds, *on_nodes}, reverse=True)
    ]
