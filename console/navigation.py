"""The sidebar: groups of links. Links that the user's role may not open are left out."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse

from accounts.roles import Permission
from accounts.selectors import may


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    title: str
    url: str
    #: Name of a symbol in unfold's icon font.
    icon: str
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    title: str
    icon: str
    #: Name of its URL in the admin site. The link is active on that page and below.
    name: str
    needs: Permission | None = None
    #: Other paths, by their beginning, on which the link is active.
    also: tuple[str, ...] = ()


_PLACES: dict[str, tuple[_Place, ...]] = {
    "": (_Place(title="Overview", icon="dashboard", name="index"),),
    "Delivery": (
        _Place(
            title="Rollouts",
            icon="rocket_launch",
            name="rollout_rollout_changelist",
            needs=Permission.VIEW_CLUSTER_MODULES,
            also=("/admin/rollouts/",),
        ),
        _Place(
            title="Modules",
            icon="extension",
            name="modules",
            needs=Permission.VIEW_CLUSTER_MODULES,
            also=("/admin/modules_app/",),
        ),
        _Place(
            title="Builds",
            icon="deployed_code",
            name="artifacts_app_build_changelist",
            needs=Permission.VIEW_CLUSTER_MODULES,
        ),
        _Place(title="Upload", icon="upload", name="upload", needs=Permission.MANAGE_CLUSTER_MODULES),
    ),
    "Fleet": (
        _Place(title="Nodes", icon="dns", name="rollout_node_changelist", needs=Permission.VIEW_ALL_NODES_INFO),
        _Place(
            title="Add a node",
            icon="add_circle",
            name="add_node",
            needs=Permission.UPDATE_NODE,
            also=("/admin/rollout/jointoken/",),
        ),
        _Place(
            title="Modules on nodes",
            icon="grid_view",
            name="rollout_nodemodule_changelist",
            needs=Permission.VIEW_ALL_NODES_INFO,
        ),
        _Place(
            title="Operations",
            icon="checklist",
            name="rollout_operation_changelist",
            needs=Permission.VIEW_CLUSTER_MODULES,
        ),
    ),
    "Audit": (
        _Place(
            title="Events",
            icon="history",
            name="eventstore_storedevent_changelist",
            needs=Permission.VIEW_LOGGED_EVENTS,
        ),
    ),
    "Administration": (
        _Place(title="Webhooks", icon="webhook", name="webhooks_webhook_changelist", needs=Permission.UPDATE_CLUSTER),
        _Place(title="Users", icon="group", name="accounts_user_changelist", needs=Permission.VIEW_ALL_USERS_INFO),
        _Place(
            title="Settings",
            icon="tune",
            name="accounts_clustersettings_changelist",
            needs=Permission.VIEW_ALL_USERS_INFO,
        ),
    ),
}


def navigation(request: HttpRequest) -> list[Group]:
    """Return the groups of links for the user."""

    def items(places: Iterable[_Place]) -> tuple[Item, ...]:
        return tuple(
            _item(each, request.path) for each in places if each.needs is None or may(request.user, each.needs)
        )

    groups = [Group(title=title, items=items(places)) for title, places in _PLACES.items()]
    return [each for each in groups if each.items]


def _item(place: _Place, path: str) -> Item:
    url = reverse(f"admin:{place.name}")
    begins = path.startswith((url, *place.also)) and place.name != "index"
    return Item(title=place.title, url=url, icon=place.icon, active=path == url or begins)
