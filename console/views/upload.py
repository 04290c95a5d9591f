"""Uploads a package from a browser: from a plain form, or from `upload.js`, which shows progress and asks for JSON."""

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, JsonResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from accounts.roles import Permission
from accounts.selectors import require_modules_upload_allowed
from api.errors import ApiError, ConflictError
from api.statuses import status_of
from artifacts_app.errors import NoModuleError
from artifacts_app.services import Upload, add_build
from artifacts_app.uploads import PackageHandler, refuse_too_large
from console.links import start_url
from console.page import answer, page
from eventstore import ConcurrencyError


@page(sees=Permission.MANAGE_CLUSTER_MODULES, changes=Permission.MANAGE_CLUSTER_MODULES)
@csrf_exempt  # the check reads the body: `_receive` does it, after the upload handler is set
def upload(request: HttpRequest) -> HttpResponseBase:
    """Show the form, or store the package. Without a module object, one is created from the package's `module.json`."""
    if request.method != "POST":
        return _form(request)
    handler = PackageHandler(request)
    request.upload_handlers = [handler]
    try:
        require_modules_upload_allowed()
        refuse_too_large(request.META)
        return _receive(request, handler)
    except ApiError as error:
        return _refusal(request, error)
    except ConcurrencyError:
        return _refusal(request, ConflictError())
    except (MultiPartParserError, SuspiciousOperation, UnreadablePostError):
        return _refusal(request, NoModuleError())
    finally:
        handler.close()


@csrf_protect
def _receive(request: HttpRequest, handler: PackageHandler) -> HttpResponseBase:
    _ = request.POST  # reads the body, if the check of the token has not
    if handler.spool is None or not handler.spool.size:
        raise NoModuleError
    return _done(request, add_build(handler.spool, register=True))


def _done(request: HttpRequest, done: Upload) -> HttpResponseBase:
    what = f"{done.module_name} {done.version} for {', '.join(done.platforms)}"
    said = f"Uploaded {what}." if done.created else f"{what} was already uploaded: this build is identical."
    module, start = reverse("admin:module", args=[done.module_name]), start_url(done.module_name, done.version)
    if _wants_json(request):
        return JsonResponse({"said": said, "module": module, "start": start}, status=201 if done.created else 200)
    messages.success(request, format_html('{} <a href="{}">Roll it out</a>', said, start))
    return HttpResponseRedirect(module)


def _refusal(request: HttpRequest, error: ApiError) -> HttpResponseBase:
    if _wants_json(request):
        return JsonResponse({"error_code": error.code, "description": error.description}, status=status_of(error))
    return _form(request, error)


def _form(request: HttpRequest, error: ApiError | None = None) -> HttpResponseBase:
    return answer(
        request,
        "console/upload.html",
        title="Upload a package",
        status=status_of(error) if error else 200,
        error=error,
        largest=f"{settings.ENVIRONMENT.max_upload_bytes / 1e6:,.0f} MB",
    )


def _wants_json(request: HttpRequest) -> bool:
    return request.headers.get("Accept", "") == "application/json"
