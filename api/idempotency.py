"""`Idempotency-Key`: a POST that creates something may be repeated, and creates it once.

The answer is kept for 24 hours per user and route, in the transaction of the work: both are recorded, or neither. The
same key with another request is 409. Of two requests at once, the later one is rolled back and gets the first answer.
Only successful answers are kept: a refused request may be tried again.
"""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from django.db import IntegrityError, transaction
from django.utils.crypto import salted_hmac
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from api.errors import ApiError, ConflictError, InvalidRequestError
from api.models import IdempotencyRecord
from eventstore import ConcurrencyError, database_now, delete_unlocked

KEPT = timedelta(hours=24)
HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

View = TypeVar("View", bound=APIView)
Params = ParamSpec("Params")


class KeyReusedError(ConflictError):
    """This Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"


class JustAnsweredError(ConflictError):
    """A request with the same Idempotency-Key was just answered. Try again."""


def idempotent(
    handler: Callable[Concatenate[View, Request, Params], Response],
) -> Callable[Concatenate[View, Request, Params], Response]:
    """Run a view's POST handler at most once per key, inside a transaction.

    For handlers that neither wait nor stream: the transaction takes as long as they do. Other handlers call
    `stored_response` before their work, and `store_response` in the transaction at its end.
    """

    @wraps(handler)
    def once(view: View, request: Request, /, *args: Params.args, **kwargs: Params.kwargs) -> Response:
        if not key_of(request):
            return handler(view, request, *args, **kwargs)
        digest = digest_of(request, request.data)
        if (stored := stored_response(request, digest)) is not None:
            return stored
        try:
            with transaction.atomic():
                response = handler(view, request, *args, **kwargs)
                store_response(request, digest, response)
        except (ApiError, APIException, ConcurrencyError):
            # Perhaps it was refused only because the same request has just done the work.
            if (stored := stored_response(request, digest)) is not None:
                return stored
            raise
        return response

    return once


def key_of(request: Request) -> str:
    """Return the request's key, or an empty string. Raises: `InvalidRequestError` if it is not a valid key."""
    key = request.headers.get(HEADER)
    if key is None:
        return ""
    if not _KEY.fullmatch(key):
        raise InvalidRequestError(f"{HEADER}: must be 1 to 255 visible ASCII characters.")
    return key


def digest_of(request: Request, content: Any) -> str:
    """Return a digest that is equal for equal requests: of the query and `content`, JSON such as the body or a file's digest.

    It is keyed: a body may contain a password, which must not be guessed from the table.
    """
    canonical = json.dumps([request.META.get("QUERY_STRING", ""), content], sort_keys=True, separators=(",", ":"))
    return salted_hmac("api.idempotency", canonical, algorithm="sha256").hexdigest()


def stored_response(request: Request, digest: str) -> Response | None:
    """Return the stored answer to the same request, if there is one. Raises: `KeyReusedError`."""
    if not (key := key_of(request)):
        return None
    record = IdempotencyRecord.objects.filter(**_owned(request, key), created_at__gt=database_now() - KEPT).first()
    if record is None:
        return None
    if record.digest != digest:
        raise KeyReusedError
    return Response(
        json.loads(record.body), status=record.status, headers={**record.headers, "Idempotency-Replayed": "true"}
    )


def store_response(request: Request, digest: str, response: Response) -> None:
    """Store a 2xx answer. Call this in the transaction of the work, after it: its first lock must be that of the log.

    Raises: `JustAnsweredError`. Then the transaction must be rolled back.
    """
    if not (key := key_of(request)) or not 200 <= response.status_code < 300:
        return
    now = database_now()
    owned = _owned(request, key)
    IdempotencyRecord.objects.filter(**owned, created_at__lte=now - KEPT).delete()
    try:
        with transaction.atomic():
            IdempotencyRecord.objects.create(
                **owned,
                digest=digest,
                status=response.status_code,
                body=JSONRenderer().render(response.data).decode() or "null",
                headers={name: value for name, value in response.items() if name != "Content-Type"},
                created_at=now,
            )
    except IntegrityError as error:
        raise JustAnsweredError from error


def keep_response(request: Request, digest: str, response: Response) -> Response:
    """Store `response` and return it, for a handler that waits between its work and its answer. If the same request was
    answered in between, return that answer. Such a handler must find its work done when it is called again."""
    try:
        with transaction.atomic():
            store_response(request, digest, response)
    except JustAnsweredError:
        return stored_response(request, digest) or response
    return response


def _owned(request: Request, key: str) -> dict[str, Any]:
    return {"user_id": request.user.pk, "route": request.path, "key": key}


def sweep_idempotency_records() -> int:
    """Delete expired answers. Return their number."""
    return delete_unlocked(IdempotencyRecord.objects.filter(created_at__lte=database_now() - KEPT))
