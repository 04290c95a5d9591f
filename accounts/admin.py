"""Accounts in the admin site: to look at. They are changed over the API, but for the own password."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth.models import Group
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse_lazy

from accounts import services
from accounts.errors import SamePasswordError
from accounts.models import ClusterSettings, User

admin.site.unregister(Group)


class OwnPasswordForm(AdminPasswordChangeForm):
    """Goes through the service, which records it and ends other sessions and tokens."""

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if "old_password" in given and given["old_password"] == given.get("new_password1"):
            self.add_error("new_password1", SamePasswordError().description)
        return given

    def save(self, commit: bool = True) -> User:  # the signature is Django's
        changes = services.UserChanges(password=self.cleaned_data["new_password1"])
        services.update_user(self.user.uid, changes, by=self.user)
        self.user.refresh_from_db()  # the page renews the caller's own session with it
        return self.user


def change_own_password(request: HttpRequest) -> HttpResponseBase:
    """In place of the admin site's own page, which writes the row and nothing else."""
    return PasswordChangeView.as_view(
        form_class=OwnPasswordForm,
        success_url=reverse_lazy("admin:password_change_done"),
        extra_context=admin.site.each_context(request),
    )(request)


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
