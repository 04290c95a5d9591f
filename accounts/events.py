"""Events of users and settings: names and roles, never a password or a hash.

An email address is in the log only if it is the user's name.
"""

from accounts.roles import Role
from eventstore import event

CLUSTER_STREAM = "cluster"


def user_stream(uid: int) -> str:
    return f"account:{uid}"


@event("account.created.v1")
class UserCreated:
    """`name` is empty if an older version has recorded the event."""

    uid: int
    role: Role
    name: str = ""


@event("account.updated.v1")
class UserUpdated:
    """`role` is the role after the change, `changed` the names of the fields with a new value. `name` and `former_name` are
    empty if the name has not changed, or if an older version has recorded the event."""

    uid: int
    role: Role
    changed: tuple[str, ...]
    name: str = ""
    former_name: str = ""


@event("account.deleted.v1")
class UserDeleted:
    uid: int
    role: Role


@event("cluster.settings_changed.v1")
class ClusterSettingsChanged:
    """All settings after the change."""

    name: str
    allow_modules_upload: bool
    correct_drift: bool = False
