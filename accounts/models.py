"""Accounts and the cluster's settings: written by `accounts.services` alone, never rebuilt from the log. And the names of
accounts, which a projection adds to."""

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.utils.crypto import salted_hmac

from accounts.roles import ROLES_WITH, Permission, Role


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> "User":
        """Also what the admin site's login calls: a name, or an email address in any case."""
        login = username or ""
        return self.get(models.Q(username=login) | models.Q(email=login.lower(), email__gt=""))


class User(AbstractBaseUser):
    """Somebody who logs in by `username` or `email`; no name is another one's email."""

    #: Given by `services.create_user`, never used twice: the log remembers those that were deleted.
    uid = models.BigIntegerField(primary_key=True)
    username = models.CharField("name", max_length=150, unique=True)
    #: In lower case; empty for the first admin until it is set.
    email = models.EmailField(blank=True)
    role = models.CharField(max_length=20, choices=[(each.value, each.value) for each in Role])
    #: Raised whenever what was handed out before must stop working: tokens, sessions, remembered credentials.
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
        """Binds sessions to the password and the credential version."""
        content = f"{self.password}:{self.credential_version}"
        return salted_hmac("accounts.session", content, algorithm="sha256").hexdigest()

    @property
    def is_staff(self) -> bool:
        """The admin site is open to whoever may look at anything at all."""
        return self.role != Role.NONE

    def has_perm(self, perm: str, _obj: object = None) -> bool:
        """The admin site's permissions, `<app>.<verb>_<model>`: admins have all, others those to look."""
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
    """A name that an account has, or has had. It never becomes the name of another account, also after the account was
    renamed or deleted: the log means this account by it. Older events have no names. Names from that time are in this
    table only, so a rebuild deletes none. If such a name was given up by then, its `uid` is 0."""

    name = models.CharField(primary_key=True, max_length=150)
    uid = models.BigIntegerField()

    def __str__(self) -> str:
        return self.name


class ClusterSettings(models.Model):
    """One row at most: there is none before the first change."""

    name = models.CharField(max_length=255)
    allow_modules_upload = models.BooleanField()
    #: Whether a module that differs from what was last released to its node is put right by itself.
    correct_drift = models.BooleanField()

    class Meta:
        verbose_name_plural = "cluster settings"

    def __str__(self) -> str:
        return self.name
