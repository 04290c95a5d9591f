"""What is recorded of accounts and settings: who has which name and role, never a password or a hash. An email address is
in the log only where it is the account's name."""

from accounts.roles import Role
from eventstore import event

CLUSTER_STREAM = "cluster"


def account_stream(uid: int) -> str:
    return f"account:{uid}"


@event("account.created.v1")
class AccountCreated:
    """`name` is empty where an older version has recorded it."""

    uid: int
    role: Role
    name: str = ""


@event("account.updated.v1")
class AccountUpdated:
    """`role` is the one after the change, `changed` the names of the fields that have a new value. `name` and `former_name`
    are there where the name has changed, and empty where an older version has recorded it."""

    uid: int
    role: Role
    changed: tuple[str, ...]
    name: str = ""
    former_name: str = ""


@event("account.deleted.v1")
class AccountDeleted:
    uid: int
    role: Role


@event("cluster.settings_changed.v1")
class ClusterSettingsChanged:
    """All settings as they are after the change."""

    name: str
    allow_modules_upload: bool
    correct_drift: bool = False
