"""The seven roles of Redis Enterprise, and those of its permissions that are used here. Knows no Django."""

from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"
    CLUSTER_MEMBER = "cluster_member"
    CLUSTER_VIEWER = "cluster_viewer"
    DB_MEMBER = "db_member"
    DB_VIEWER = "db_viewer"
    USER_MANAGER = "user_manager"
    NONE = "none"


class Permission(StrEnum):
    VIEW_CLUSTER_MODULES = "view_cluster_modules"
    MANAGE_CLUSTER_MODULES = "manage_cluster_modules"
    VIEW_CLUSTER_INFO = "view_cluster_info"
    UPDATE_CLUSTER = "update_cluster"
    VIEW_STATUS_OF_CLUSTER_ACTION = "view_status_of_cluster_action"
    VIEW_ALL_NODES_INFO = "view_all_nodes_info"
    UPDATE_NODE = "update_node"
    VIEW_LOGGED_EVENTS = "view_logged_events"
    VIEW_ALL_USERS_INFO = "view_all_users_info"
    VIEW_USER_INFO = "view_user_info"
    CREATE_NEW_USER = "create_new_user"
    UPDATE_USER = "update_user"
    DELETE_USER = "delete_user"


_ALL_ROLES = frozenset(Role) - {Role.NONE}
_ADMIN = frozenset({Role.ADMIN})
_USER_MANAGERS = frozenset({Role.ADMIN, Role.USER_MANAGER})

#: Source: the vendor's page "Permissions" of the REST API reference.
ROLES_WITH: dict[Permission, frozenset[Role]] = {
    Permission.VIEW_CLUSTER_MODULES: _ALL_ROLES,
    Permission.MANAGE_CLUSTER_MODULES: _ADMIN,
    Permission.VIEW_CLUSTER_INFO: _ALL_ROLES,
    Permission.UPDATE_CLUSTER: _ADMIN,
    Permission.VIEW_STATUS_OF_CLUSTER_ACTION: _ALL_ROLES,
    Permission.VIEW_ALL_NODES_INFO: _ALL_ROLES,
    Permission.UPDATE_NODE: _ADMIN,
    Permission.VIEW_LOGGED_EVENTS: _ALL_ROLES - {Role.DB_VIEWER},
    Permission.VIEW_ALL_USERS_INFO: _USER_MANAGERS,
    Permission.VIEW_USER_INFO: _USER_MANAGERS,
    Permission.CREATE_NEW_USER: _USER_MANAGERS,
    Permission.UPDATE_USER: _USER_MANAGERS,
    Permission.DELETE_USER: _USER_MANAGERS,
}
