"""Accounts in the admin site: to look at. They are changed over the API, but for the own password."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.models import Group
from django.http import HttpRequest

from accounts import services
from accounts.models import ClusterSettings, User

admin.site.unregister(Group)


class OwnPasswordForm(PasswordChangeForm):
    """Goes through the service, which records it and ends other sessions and tokens."""

    def save(self, commit: bool = True) -> User:  # the signature is Django's
        changes = services.UserChanges(password=self.cleaned_data["new_password1"])
        services.update_user(self.user.uid, changes, by=self.user)
        self.user.refresh_from_db()  # the page renews the caller's own session with it
        return self.user


admin.site.password_change_form = OwnPasswordForm


class ReadOnlyAdmin(admin.ModelAdmin[Any]):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(User)
class UserAdmin(ReadOnlyAdmin):
    list_display = ["uid", "username", "email", "role", "is_active", "last_login"]
    list_filter = ["role", "is_active"]
    search_fields = ["username", "email"]
    exclude = ["password"]


@admin.register(ClusterSettings)
class ClusterSettingsAdmin(ReadOnlyAdmin):
    list_display = ["name", "allow_modules_upload"]
