"""The pages that start, show and control rollouts, and the page that freezes the fleet."""

from hashlib import sha256

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from accounts.roles import Permission
from accounts.selectors import may, uid_of
from api.errors import ApiError, ConflictError
from artifacts_app.selectors import uploaded_versions
from console.page import Crumb, answer, page
from console.rollouts.body import texts_of
from console.rollouts.buttons import CANCEL, ROLL_BACK, Button, button_of, conditions_of, offered, press
from console.rollouts.fields import ACTION, ACTIVATION, NODES, defaults
from console.rollouts.live import live
from console.rollouts.request import ReasonSerializer, RemarkSerializer, StartForm
from eventstore import ConcurrencyError, in_words
from rollout.domain.errors import NodeNotFoundError, RolloutNotFoundError
from rollout.domain.rollout.rollback import left_unchanged_sentence
from rollout.queries.freeze import freeze_document
from rollout.queries.nodes import node_rows
from rollout.queries.operations import operation_row
from rollout.queries.restoration import restoration_of
from rollout.queries.rollouts import rollout_row
from rollout.services.freeze import freeze_fleet, thaw_fleet
from rollout.services.rollouts import cancel_node
from ui.cells import page_url

#: How many module versions the form offers, and up to how many nodes it shows as checkboxes.
VERSIONS = 1000
TICKED = 60
SCOPES = (("all", "The whole fleet"), ("named", "These nodes"), ("selected", "Nodes that match…"))
_SEES, _CHANGES = Permission.VIEW_CLUSTER_MODULES, Permission.MANAGE_CLUSTER_MODULES


# --- Starting ---------------------------------------------------------------------------------------------------------


@page(sees=_CHANGES, changes=_CHANGES)
def start(request: HttpRequest) -> HttpResponseBase:
    """Show the form and its plan, or start the rollout. The query fills the form: `?module=NAME&version=V`, or any field."""
    if request.method == "POST":
        form = StartForm(texts_of(request.POST))
        if "start" in request.POST:
            try:
                uid = form.start()
            except ConcurrencyError:
                form.errors = {"": [ConflictError().description]}
                uid = ""
            if uid:
                messages.success(request, "Rollout created.")
                return HttpResponseRedirect(rollout_url(uid))
        else:
            form.preview()
        return _form(request, form)
    given = texts_of(request.GET)
    module, version = (given.pop(name, [""])[0] for name in ("module", "version"))
    form = StartForm({**defaults(), **({"artifact": [f"{module}/{version}"]} if module else {}), **given})
    if form.text("artifact"):
        form.preview()
    return _form(request, form)


def _form(request: HttpRequest, form: StartForm) -> HttpResponse:
    chosen = form.text("artifact")
    artifacts = [f"{name}/{version}" for name, version in uploaded_versions()[:VERSIONS]]
    names = list(node_rows().values_list("name", flat=True)[: TICKED + 1])
    (nodes,) = form.shown(NODES)
    return answer(
        request,
        "console/rollouts/start.html",
        title="Start a rollout",
        trail=[_all_rollouts()],
        form=form,
        action=form.shown(ACTION)[0],
        activation=form.shown(ACTIVATION)[0],
        artifacts=[*artifacts, *([chosen] if chosen and chosen not in artifacts else [])],
        chosen=[chosen],
        artifact_errors=form.errors.get("artifact", ()),
        selector_errors=form.errors.get("selector", ()),
        general_errors=form.errors.get("", ()),
        scopes=SCOPES,
        scope=form.text("scope"),
        nodes=nodes,
        tickable=names if len(names) <= TICKED else (),
        blocked_by=rollout_url(form.blocked_by) if form.blocked_by else "",
    )


# --- Watching ---------------------------------------------------------------------------------------------------------


@page(sees=_SEES)
def watch(request: HttpRequest, uid: str) -> HttpResponseBase:
    """Return the rollout's page; with `?live` only the part that may change, or 304 if the client has it."""
    try:
        now = live(uid, by=uid_of(request.user), may_act=may(request.user, _CHANGES))
    except RolloutNotFoundError as error:
        raise Http404 from error
    if "live" not in request.GET:
        return answer(request, "console/rollouts/watch.html", title=now.title, trail=[_all_rollouts()], live=now)
    text = render_to_string("console/rollouts/live.html", {"live": now}, request)
    etag = f'"{sha256(text.encode()).hexdigest()[:32]}"'
    if request.headers.get("If-None-Match", "").removeprefix("W/") == etag:
        return HttpResponse(status=304, headers={"ETag": etag})
    return HttpResponse(text, headers={"ETag": etag, "Cache-Control": "no-cache"})


# --- Controlling ------------------------------------------------------------------------------------------------------


@page(sees=_CHANGES, changes=_CHANGES)
def verb(request: HttpRequest, uid: str, name: str) -> HttpResponseBase:
    """GET asks for confirmation, POST does it."""
    if (button := button_of(name)) is None:
        raise Http404
    if request.method != "POST":
        return _confirm(request, uid, button)
    remark = ""
    if button.remark:
        serializer = RemarkSerializer(data={"remark": request.POST.get("remark", "")})
        if not serializer.is_valid():
            return _confirm(request, uid, button, error=" ".join(map(str, serializer.errors["remark"])))
        remark = serializer.validated_data["remark"]
    try:
        next_uid = press(button, uid, by=uid_of(request.user), remark=remark)
    except RolloutNotFoundError as error:
        raise Http404 from error
    except ApiError as error:
        messages.error(request, error.description)
        next_uid = uid
    except ConcurrencyError:
        messages.error(request, ConflictError().description)
        next_uid = uid
    else:
        messages.success(request, button.done if next_uid == uid else _done_by_new_rollout(button, uid))
    return HttpResponseRedirect(rollout_url(next_uid))


def _done_by_new_rollout(button: Button, original: str) -> str:
    return format_html(
        '{} This new rollout does it, because <a href="{}">the original rollout</a> has ended.',
        button.done,
        rollout_url(original),
    )


@page(sees=_CHANGES, changes=_CHANGES)
def cancel(request: HttpRequest, uid: str, node: str) -> HttpResponseBase:
    """Cancel the rollout on one node. GET asks for confirmation."""
    try:
        if request.method != "POST":
            operation_row(uid, node)
            return _confirm(request, uid, CANCEL, node=node)
        cancel_node(uid, node, force="force" in request.POST)
        messages.success(request, f"{node}: {CANCEL.done}")
    except (RolloutNotFoundError, NodeNotFoundError) as error:
        raise Http404 from error
    except ApiError as error:
        messages.error(request, f"{node}: {error.description}")
    except ConcurrencyError:
        messages.error(request, ConflictError().description)
    return HttpResponseRedirect(rollout_url(uid))


def _confirm(request: HttpRequest, uid: str, button: Button, *, error: str = "", node: str = "") -> HttpResponse:
    try:
        row = rollout_row(uid)
    except RolloutNotFoundError as missing:
        raise Http404 from missing
    conditions = conditions_of(row, by=uid_of(request.user))
    title = capfirst(row.title)
    return answer(
        request,
        "console/rollouts/confirm.html",
        title=button.ask,
        trail=[_all_rollouts(), Crumb(text=title, url=rollout_url(uid))],
        what=title,
        button=button,
        left_unchanged=left_unchanged_sentence(restoration_of(uid).unchanged) if button is ROLL_BACK else "",
        node=node,
        error=error,
        remark=request.POST.get("remark", ""),
        back=rollout_url(uid),
        is_offered=button is CANCEL or button in offered(conditions),
        phase=conditions.phase,
    )


# --- The whole fleet --------------------------------------------------------------------------------------------------


@page(sees=_SEES, changes=_CHANGES)
def freeze(request: HttpRequest) -> HttpResponseBase:
    """Show whether the fleet is frozen, and freeze or thaw it."""
    reason, error = request.POST.get("reason", ""), ""
    if request.method == "POST" and "thaw" in request.POST:
        thaw_fleet()
        messages.success(request, "The fleet is thawed. Rollouts continue.")
        return HttpResponseRedirect(reverse("admin:freeze"))
    if request.method == "POST":
        serializer = ReasonSerializer(data={"reason": reason})
        if serializer.is_valid():
            freeze_fleet(serializer.validated_data["reason"])
            _report_freeze(request, serializer.validated_data["reason"])
            return HttpResponseRedirect(reverse("admin:freeze"))
        error = " ".join(map(str, serializer.errors["reason"]))
    return answer(
        request,
        "console/rollouts/freeze.html",
        title="Freeze the fleet",
        freeze=freeze_document(),
        may_act=may(request.user, _CHANGES),
        reason=reason,
        error=error,
    )


def _report_freeze(request: HttpRequest, reason: str) -> None:
    """Add a message. If another person froze the fleet first, show that person's reason."""
    freeze = freeze_document()
    if (freeze["actor"], freeze["reason"]) == (request.user.get_username(), reason):
        messages.success(request, "The fleet is frozen. Rollouts start nothing new until it is thawed.")
    else:
        messages.warning(request, f"The fleet was already frozen by {in_words(freeze['actor'])}: {freeze['reason']}")


def rollout_url(uid: str) -> str:
    return page_url("rollout_rollout", uid)


def _all_rollouts() -> Crumb:
    return Crumb(text="Rollouts", url=reverse("admin:rollout_rollout_changelist"))
