"""Users in the admin site, read-only. They are changed over the API, except the user's own password."""

from collections.abc import Callable, Collection, Iterable, Sequence
from http import HTTPStatus
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import Group
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse, reverse_lazy
from unfold.forms import AdminOwnPasswordChangeForm

from accounts import services
from accounts.errors import SamePasswordError
from accounts.failed_logins import count_failed_login, require_attempts_left
from accounts.models import ClusterSettings, User
from accounts.roles import Permission
from api.client_address import client_address
from api.errors import ApiError, ConflictError, TooManyRequestsError
from api.statuses import headers_of, status_of
from eventstore import ConcurrencyError
from ui.cells import page_url
from ui.pages import ReadOnlyAdmin

#: How many rows an action takes at a time.
MOST_ROWS = 500

admin.site.unregister(Group)


class OwnPasswordForm(AdminOwnPasswordChangeForm):
    """Changes the password through the service, which records the change and ends other sessions and tokens."""

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
    """Show the form for the user's own password. It replaces the admin site's, which only writes the row."""
    return PasswordChangeView.as_view(
        form_class=OwnPasswordForm,
        success_url=reverse_lazy("admin:password_change_done"),
        extra_context=admin.site.each_context(request),
    )(request)


def log_in(request: HttpRequest) -> HttpResponseBase:
    """Show the admin site's login form, and refuse logins after too many failures."""
    if request.method != "POST":
        return admin.site.login(request)
    login, address = request.POST.get("username", ""), client_address(request.META)
    try:
        require_attempts_left(login, address=address)
    except TooManyRequestsError as error:
        context = {
            **admin.site.each_context(request),
            "title": "Too many failed logins",
            "description": error.description,
        }
        page = TemplateResponse(request, "accounts/too_many.html", context, status=status_of(error))
        for name, value in headers_of(error).items():
            page[name] = value
        return page
    response = admin.site.login(request)
    if response.status_code == HTTPStatus.OK:  # the form again: a successful login redirects
        count_failed_login(login, address=address)
    return response


#: Actions whose buttons are red: they take something away.
DANGEROUS = frozenset({"decommission", "abort", "revoke", "delete_object", "delete_artifact"})
_STYLES = {**dict.fromkeys(DANGEROUS, "danger"), "accept": ""}


class ActingAdmin(ReadOnlyAdmin):
    """A read-only admin with actions that call services: for selected rows of the list, and as buttons on a row's page.

    An action is a method with `@admin.action(permissions=["act"])` that returns `self.act(...)`.
    """

    #: The permission that the actions need.
    permission: Permission

    def has_act_permission(self, request: HttpRequest) -> bool:
        return isinstance(request.user, User) and request.user.may(self.permission)

    def offered(self, row: Any) -> Collection[str]:
        """Return the names of the actions that the row allows."""
        return [each for each in self.actions or () if isinstance(each, str)]

    def act(
        self,
        request: HttpRequest,
        rows: Iterable[Any],
        do: Callable[[Any], str],
        *,
        ask: str = "",
        shows: Callable[[Any], str] = lambda _: "",
    ) -> HttpResponseBase | None:
        """Call `do` for each row, and show what it returns or the service's error. `ask`: a question to confirm first.

        `shows`: what the question says about a row. `confirmed` returns it once the question is answered.
        """
        chosen = list(rows)
        if len(chosen) > MOST_ROWS:
            self.message_user(request, f"Select at most {MOST_ROWS} rows at a time.", messages.ERROR)
            return None
        if ask and "_confirmed" not in request.POST:
            return self._confirmation(request, [(row, shows(row)) for row in chosen], ask)
        for row in chosen:
            try:
                done = do(row)
            except ApiError as error:
                self.message_user(request, f"{row}: {error.description}", messages.ERROR)
            except ConcurrencyError:
                self.message_user(request, f"{row}: {ConflictError().description}", messages.ERROR)
            else:
                self.message_user(request, done, messages.SUCCESS)
        page = f"{self.opts.app_label}_{self.opts.model_name}"
        if "_from_page" in request.POST and len(chosen) == 1 and self.get_object(request, chosen[0].pk) is not None:
            return HttpResponseRedirect(page_url(page, chosen[0].pk))
        return None

    def confirmed(self, request: HttpRequest, row: Any) -> str:
        """Return what the question that was confirmed said about the row."""
        return str(request.POST.get(f"_shown_{row.pk}", ""))

    def _confirmation(self, request: HttpRequest, rows: Sequence[tuple[Any, str]], ask: str) -> HttpResponseBase:
        action = request.POST.get("action", "")
        found = self.get_actions(request).get(action)
        context = {
            **self.admin_site.each_context(request),
            "title": "Are you sure?",
            "opts": self.opts,
            "ask": ask,
            "rows": rows,
            "action": action,
            "label": found[2] if found else "continue",
            "is_dangerous": action in DANGEROUS,
            "from_page": "_from_page" in request.POST,
            "media": self.media,
        }
        return TemplateResponse(request, "console/confirm.html", context)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        offered = self.offered(obj)
        actions = self.get_actions(request).items()
        context["buttons"] = [
            (name, action[2], _STYLES.get(name, "quiet"))
            for name, action in actions
            if action is not None and name in offered
        ]
        context["buttons_url"] = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        return super().render_change_form(request, context, add, change, form_url, obj)


@admin.register(User)
class UserAdmin(ReadOnlyAdmin):
    about = "All users and their roles. To change them, use `modfleet users` or the API (/v1/users)."
    list_display = ["uid", "username", "email", "role", "is_active", "last_login"]
    list_filter = ["role", "is_active"]
    search_fields = ["username", "email"]
    exclude = ["password"]


@admin.register(ClusterSettings)
class ClusterSettingsAdmin(ReadOnlyAdmin):
    about = "Settings of the whole cluster, listed once they have been changed over the API: PUT /v1/cluster."
    list_display = ["name", "allow_modules_upload", "correct_drift", "enforce_compatible_redis_version"]
