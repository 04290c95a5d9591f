"""Users and the cluster's settings: written only by `accounts.services`, never rebuilt from the log.

And the names of users, which a projection adds.
"""

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.utils.crypto import salted_hmac

from accounts.roles import ROLES_WITH, Permission, Role


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> "User":
        """Return the user with this name, or with this email address in any case. The admin site's login calls this too."""
        login = username or ""
        return self.get(models.Q(username=login) | models.Q(email=login.lower(), email__gt=""))


class User(AbstractBaseUser):
    """A user, who logs in by `username` or `email`. No name is the email address of another user."""

    #: Set by `services.create_user`. Never used twice: the log has the uids of deleted users.
    uid = models.BigIntegerField(primary_key=True)
    username = models.CharField("name", max_length=150, unique=True)
    #: In lower case; empty for the first admin until it is set.
    email = models.EmailField(blank=True)
    role = models.CharField(max_length=20, choices=[(each.value, each.value) for each in Role])
    #: Raised to end all earlier tokens, sessions and credentials in memory.
    credential_version = models.PositiveIntegerField(default=1)
    password_issued_at = models.DateTimeField()
    is_active = models.BooleanField("able to sign in", default=True)

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects: ClassVar[UserManager] = UserManager()

    class Meta:
        ordering: ClassVar = ["uid"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["email"], condition=~models.Q(email=""), name="one_account_per_email")
        ]

    def __str__(self) -> str:
        return self.username

    def may(self, permission: Permission) -> bool:
        return self.role in ROLES_WITH[permission]

    def logs_in_as(self, login: str) -> bool:
        return login == self.username or (self.email != "" and login.lower() == self.email)

    def get_session_auth_hash(self) -> str:
        """Return a hash that binds sessions to the password and the credential version."""
        content = f"{self.password}:{self.credential_version}"
        return salted_hmac("accounts.session", content, algorithm="sha256").hexdigest()

    @property
    def is_staff(self) -> bool:
        """Return True for every role that may view anything: the admin site is open to them."""
        return self.role != Role.NONE

    def has_perm(self, perm: str, _obj: object = None) -> bool:
        """Return True if the user has the admin site's permission `<app>.<verb>_<model>`: admins all, others only `view`."""
        app, _, codename = perm.partition(".")
        if not self.is_active or not codename.startswith("view_"):
            return self.is_active and self.role == Role.ADMIN
        match app:
            case "accounts":
                return self.may(Permission.VIEW_ALL_USERS_INFO)
            case "eventstore":
                return self.may(Permission.VIEW_LOGGED_EVENTS)
            case _:
                return self.is_staff

    def has_perms(self, perms: list[str], obj: object = None) -> bool:
        return all(self.has_perm(each, obj) for each in perms)

    def has_module_perms(self, app_label: str) -> bool:
        return self.has_perm(f"{app_label}.view_")


class AccountName(models.Model):
    """A name that a user has, or has had. It never becomes the name of another user, also after this user was renamed or
    deleted: in the log it means this user. Older events have no names. Names from that time are only in this table, so a
    rebuild deletes none. If such a name was no longer in use, its `uid` is 0."""

    name = models.CharField(primary_key=True, max_length=150)
    uid = models.BigIntegerField()

    def __str__(self) -> str:
        return self.name


class ClusterSettings(models.Model):
    """At most one row: there is none before the first change."""

    name = models.CharField(max_length=255)
    allow_modules_upload = models.BooleanField()
    #: True if the control plane corrects a module that differs from what was last released to its node.
    correct_drift = models.BooleanField()
    #: True if no module goes to a node with a newer server than its `compatible_redis_version`.
    enforce_compatible_redis_version = models.BooleanField(default=False, db_default=False)

    class Meta:
        verbose_name_plural = "cluster settings"

    def __str__(self) -> str:
        return self.name
