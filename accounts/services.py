"""Changes users and settings. Each change appends its audit event and writes its row in one transaction.

The event comes first: the append takes the log's lock until the commit. So of two changes on PostgreSQL, the second one
sees the rows of the first when it checks the rules for all users (names, the last admin). SQLite has one writer anyway.
Hashing a password is slow and happens before.
"""

from dataclasses import asdict, dataclass, replace
from itertools import chain, count

from django.contrib.auth import password_validation
from django.contrib.auth.hashers import check_password, make_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max, Q

from accounts.errors import (
    AdminOnlyError,
    EmailTakenError,
    LastAdminError,
    NameTakenError,
    NameUsedBeforeError,
    SamePasswordError,
    WeakPasswordError,
)
from accounts.events import (
    CLUSTER_STREAM,
    ClusterSettingsChanged,
    UserCreated,
    UserDeleted,
    UserUpdated,
    user_stream,
)
from accounts.models import AccountName, ClusterSettings, User
from accounts.roles import Role
from accounts.selectors import Cluster, cluster, user_by_uid
from eventstore import Append, append, database_now, last_version, load_many, retry_on_conflict

FIRST_ADMIN = "admin"
_UIDS_AT_A_TIME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChanges:
    """New values. None leaves a field unchanged."""

    name: str | None = None
    email: str | None = None
    password: str | None = None
    role: Role | None = None
    active: bool | None = None


def create_user(*, name: str, email: str, password: str, role: Role, by: User | None) -> User:
    """Create a user. `by` is None for the program itself.

    Raises: `AdminOnlyError`, `WeakPasswordError`, `NameTakenError`, `NameUsedBeforeError`, `EmailTakenError`.
    """
    _require_admin_for(by, role)
    _require_strong(password)
    return _create_user(name=name, email=email.lower(), encoded=make_password(password), role=role)


@retry_on_conflict
def _create_user(*, name: str, email: str, encoded: str, role: Role) -> User:
    with transaction.atomic():
        uid = _unused_uid()
        append(Append(user_stream(uid), 0, [UserCreated(uid=uid, role=role, name=name)]))
        _require_free_name(uid, name)
        _require_free_email(uid, email)
        return User.objects.create(
            uid=uid, username=name, email=email, password=encoded, role=role, password_issued_at=database_now()
        )


def update_user(uid: int, changes: UserChanges, *, by: User | None) -> User:
    """Change a user, and return it. A new password, role or status ends tokens and sessions.

    Raises: `UserNotFoundError`, and what `create_user` raises, `SamePasswordError`, `LastAdminError`.
    """
    user = user_by_uid(uid)
    _require_admin_for(by, Role(user.role), changes.role)
    encoded = None
    if changes.password is not None:
        _require_strong(changes.password)
        if check_password(changes.password, user.password):
            raise SamePasswordError
        encoded = make_password(changes.password)
    return _update_user(uid, changes, encoded, by)


@retry_on_conflict
def _update_user(uid: int, changes: UserChanges, encoded: str | None, by: User | None) -> User:
    with transaction.atomic():
        version = last_version(user_stream(uid))
        user = user_by_uid(uid)
        _require_admin_for(by, Role(user.role), changes.role)
        changed = _changed(user, changes)
        if not changed:
            return user
        former_role, role = user.role, changes.role or Role(user.role)
        name, former_name = changes.name or user.username, user.username
        event = UserUpdated(uid=uid, role=role, changed=changed)
        if name != former_name:
            event = replace(event, name=name, former_name=former_name)
        append(Append(user_stream(uid), version, [event]))
        user.username = name
        user.email = user.email if changes.email is None else changes.email.lower()
        user.role = role
        user.is_active = user.is_active if changes.active is None else changes.active
        if encoded is not None:
            user.password, user.password_issued_at = encoded, database_now()
        if {"password", "role", "status"}.intersection(changed):
            user.credential_version += 1
        if "name" in changed:
            _require_free_name(uid, user.username)
        if "email" in changed:
            _require_free_email(uid, user.email)
        user.save(force_update=True)
        _require_an_admin_after(former_role)
        return user


def delete_user(uid: int, *, by: User | None) -> None:
    """Delete a user. Raises: `UserNotFoundError`, `AdminOnlyError`, `LastAdminError`."""

    @retry_on_conflict
    def attempt() -> None:
        with transaction.atomic():
            version = last_version(user_stream(uid))
            user = user_by_uid(uid)
            _require_admin_for(by, Role(user.role))
            append(Append(user_stream(uid), version, [UserDeleted(uid=uid, role=Role(user.role))]))
            user.delete()
            _require_an_admin_after(user.role)

    attempt()


def bootstrap_admin(password: str) -> str:
    """Create the first user, an admin, and return its name: `admin`, or `admin-2` and so on if that name was used before.

    Returns an empty string and does nothing if there is any user.
    """
    if User.objects.exists():
        return ""
    name = _name_of_admin()
    try:
        create_user(name=name, email="", password=password, role=Role.ADMIN, by=None)
    except NameTakenError:  # another process starts at the same time
        return ""
    return name


def ensure_admin(password: str) -> str:
    """Create an admin with this password, or set its password, and return its name: `admin`, or `admin-2` and so on if that
    user was renamed or deleted."""
    name = _name_of_admin()
    admin = User.objects.filter(username=name).first()
    if admin is None:
        create_user(name=name, email="", password=password, role=Role.ADMIN, by=None)
    elif not check_password(password, admin.password):
        update_user(admin.uid, UserChanges(password=password), by=None)
    return name


def _name_of_admin() -> str:
    """Return the first of the names that a user has now, or that no user ever had."""
    had = {
        each.lower()
        for each in AccountName.objects.filter(name__istartswith=FIRST_ADMIN).values_list("name", flat=True)
    }
    has = set(User.objects.filter(username__startswith=FIRST_ADMIN).values_list("username", flat=True))
    names = chain([FIRST_ADMIN], (f"{FIRST_ADMIN}-{number}" for number in count(2)))
    return next(each for each in names if each in has or each not in had)


@retry_on_conflict
def update_cluster_settings(
    *,
    name: str | None = None,
    allow_modules_upload: bool | None = None,
    correct_drift: bool | None = None,
    enforce_compatible_redis_version: bool | None = None,
) -> Cluster:
    """Change the settings, and return them. None leaves a setting unchanged."""
    with transaction.atomic():
        version = last_version(CLUSTER_STREAM)
        before = cluster()
        after = changed_settings(
            before,
            name=name,
            allow_modules_upload=allow_modules_upload,
            correct_drift=correct_drift,
            enforce_compatible_redis_version=enforce_compatible_redis_version,
        )
        if after == before:
            return after
        append(Append(CLUSTER_STREAM, version, [ClusterSettingsChanged(**asdict(after))]))
        ClusterSettings.objects.update_or_create(pk=1, defaults=asdict(after))
        return after


def changed_settings(
    before: Cluster,
    *,
    name: str | None = None,
    allow_modules_upload: bool | None = None,
    correct_drift: bool | None = None,
    enforce_compatible_redis_version: bool | None = None,
) -> Cluster:
    """Return the settings as they would be after a change. None leaves a setting unchanged."""
    changes = {
        "name": name,
        "allow_modules_upload": allow_modules_upload,
        "correct_drift": correct_drift,
        "enforce_compatible_redis_version": enforce_compatible_redis_version,
    }
    return Cluster(**(asdict(before) | {setting: value for setting, value in changes.items() if value is not None}))


def _require_admin_for(by: User | None, *roles: Role | None) -> None:
    """Raises: `AdminOnlyError`. Otherwise a user manager could become an admin, or log in as one by a new password."""
    if Role.ADMIN in roles and by is not None and by.role != Role.ADMIN:
        raise AdminOnlyError


def _require_strong(password: str) -> None:
    try:
        password_validation.validate_password(password)
    except ValidationError as error:
        raise WeakPasswordError(f"password: {' '.join(error.messages)}") from error


def _require_free_name(uid: int, name: str) -> None:
    """Raises: `NameTakenError`, `NameUsedBeforeError` if another user has or had the name, or has it as email address.

    Letter case does not count: people would confuse the names. Called after the append, which records a free name.
    """
    others = User.objects.exclude(uid=uid)
    if others.filter(Q(username__iexact=name) | Q(email=name.lower())).exists():
        raise NameTakenError
    if AccountName.objects.filter(name__iexact=name).exclude(uid=uid).exists():
        raise NameUsedBeforeError


def _require_free_email(uid: int, email: str) -> None:
    """Raises: `EmailTakenError`, also if the address is the name of another user: both are used to log in."""
    others = User.objects.exclude(uid=uid)
    if email and others.filter(Q(username__iexact=email) | Q(email=email)).exists():
        raise EmailTakenError


def _require_an_admin_after(former_role: str) -> None:
    if former_role == Role.ADMIN and not User.objects.filter(role=Role.ADMIN, is_active=True).exists():
        raise LastAdminError


def _changed(user: User, changes: UserChanges) -> tuple[str, ...]:
    values = {
        "name": (changes.name, user.username),
        "email": (changes.email and changes.email.lower(), user.email),
        "password": (changes.password, None),
        "role": (changes.role, user.role),
        "status": (changes.active, user.is_active),
    }
    return tuple(field for field, (new, old) in values.items() if new is not None and new != old)


def _unused_uid() -> int:
    """Return the next uid that no user ever had, according to the log."""
    uid = (User.objects.aggregate(newest=Max("uid"))["newest"] or 0) + 1
    while True:
        streams = load_many([user_stream(each) for each in range(uid, uid + _UIDS_AT_A_TIME)])
        for each in range(uid, uid + _UIDS_AT_A_TIME):
            if not streams[user_stream(each)]:
                return each
        uid += _UIDS_AT_A_TIME
