"""Answers about users and the cluster's settings."""

from dataclasses import dataclass
from typing import cast

from django.conf import settings

from accounts.errors import ModulesUploadDisabledError, UserNotFoundError
from accounts.models import AccountName, ClusterSettings, User
from accounts.roles import Permission

DEFAULT_CLUSTER_NAME = "modfleet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    name: str
    allow_modules_upload: bool
    correct_drift: bool = False
    enforce_compatible_redis_version: bool = False


def may(user: object, permission: Permission) -> bool:
    """Return True if this is a user with the permission."""
    return isinstance(user, User) and user.may(permission)


def uid_of(user: object) -> int:
    """Return the uid of a signed-in user."""
    return cast(User, user).uid


def all_users() -> list[User]:
    return list(User.objects.order_by("uid"))


def user_by_uid(uid: int) -> User:
    """Return the user. Raises: `UserNotFoundError`."""
    user = User.objects.filter(uid=uid).first()
    if user is None:
        raise UserNotFoundError(f"There is no user {uid}.")
    return user


def user_by_login(login: str) -> User | None:
    """Return the user with this name or email address, or None."""
    try:
        return User.objects.get_by_natural_key(login)
    except User.DoesNotExist:
        return None


def user_called(login: str) -> int | None:
    """Return the uid of the user that has this name or had it, also of a deleted user. None if it is not known."""
    return AccountName.objects.filter(name=login, uid__gt=0).values_list("uid", flat=True).first()


def cluster() -> Cluster:
    """Return the settings after their last change, or else those of the environment."""
    row = ClusterSettings.objects.first()
    if row is None:
        return Cluster(name=DEFAULT_CLUSTER_NAME, allow_modules_upload=settings.ENVIRONMENT.allow_modules_upload)
    return Cluster(
        name=row.name,
        allow_modules_upload=row.allow_modules_upload,
        correct_drift=row.correct_drift,
        enforce_compatible_redis_version=row.enforce_compatible_redis_version,
    )


def modules_upload_allowed() -> bool:
    return cluster().allow_modules_upload


def compatible_redis_version_is_enforced() -> bool:
    return cluster().enforce_compatible_redis_version


def drift_is_corrected() -> bool:
    return cluster().correct_drift


def require_modules_upload_allowed() -> None:
    """Raises: `ModulesUploadDisabledError`, whatever the caller's role."""
    if not modules_upload_allowed():
        raise ModulesUploadDisabledError
