"""Events of users and cluster settings: names and roles, never a password or a hash. An email address is in the log only if
it is the user's name."""

from accounts.roles import Role
from eventstore import event

CLUSTER_STREAM = "cluster"


def user_stream(uid: int) -> str:
    return f"account:{uid}"


@event("account.created.v1")
class UserCreated:
    """A user was created. `uid`: the user's number. `name`: the login name, empty in older logs."""

    uid: int
    role: Role
    name: str = ""


@event("account.updated.v1")
class UserUpdated:
    """A user was changed. `role`: the role after the change. `changed`: the names of the changed fields. `name` and
    `former_name`: the login names after and before the change; empty if the name did not change, and in older logs."""

    uid: int
    role: Role
    changed: tuple[str, ...]
    name: str = ""
    former_name: str = ""


@event("account.deleted.v1")
class UserDeleted:
    """A user was deleted. `role`: the user's last role."""

    uid: int
    role: Role


@event("cluster.settings_changed.v1")
class ClusterSettingsChanged:
    """Cluster settings were changed. The event has all settings as they are after the change.

    `name`: the cluster's name. `allow_modules_upload`: packages may be uploaded. `correct_drift`: the reconciler corrects
    modules that drifted. `enforce_compatible_redis_version`: no module goes to a node with a newer server than its
    `compatible_redis_version`."""

    name: str
    allow_modules_upload: bool
    correct_drift: bool = False
    enforce_compatible_redis_version: bool = False
