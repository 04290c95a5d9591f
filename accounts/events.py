"""What is recorded of accounts and settings: who has which name and role, never a password or a hash. An email address is
in the log only where it is the account's name."""

from dataclasses import dataclass

from accounts.roles import Role
from eventstore.registry import event_type

CLUSTER_STREAM = "cluster"


def account_stream(uid: int) -> str:
    return f"account:{uid}"


@event_type("account.created.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class AccountCreated:
    """`name` is empty where an older version has recorded it."""

    uid: int
    role: Role
    name: str = ""


@event_type("account.updated.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUpdated:
    """`role` is the one after the change, `changed` the names of the fields that have a new value. `name` and `former_name`
    are there where the name has changed, and empty where an older version has recorded it."""

    uid: int
    role: Role
    changed: tuple[str, ...]
    name: str = ""
    former_name: str = ""


@event_type("account.deleted.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class AccountDeleted:
    uid: int
    role: Role


@event_type("cluster.settings_changed.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettingsChanged:
    """All settings as they are after the change."""

    name: str
    allow_modules_upload: bool
    correct_drift: bool = False
