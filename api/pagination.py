"""Long lists in pages: `{"results": [...], "next": url or null}`, `?limit=` and an opaque `?cursor=`.

A cursor is the key of the last row seen, so that a page costs the same wherever it is and rows that come meanwhile
neither shift nor repeat the others. It is signed: nobody can make one up.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.core import signing
from django.db.models import Model, QuerySet
from django.http import QueryDict
from drf_spectacular.utils import extend_schema_serializer, inline_serializer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer, URLField

from api.errors import InvalidRequestError

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

Row = TypeVar("Row")
Stored = TypeVar("Stored", bound=Model)
#: What a cursor carries: any JSON that identifies a row in the list's order.
Key = Any


def paginate(
    request: Request, rows: QuerySet[Stored], *, key: str, serialize: Callable[[Sequence[Stored]], Sequence[Any]]
) -> Response:
    """A page in the order of `key`: the name of a unique column, with `-` before it for the newest first."""
    column, comparison = key.removeprefix("-"), "lt" if key.startswith("-") else "gt"

    def fetch(after: Key, limit: int) -> Sequence[Stored]:
        found = rows if after is None else rows.filter(**{f"{column}__{comparison}": after})
        return list(found.order_by(key)[:limit])

    return paginate_by(request, fetch, key_of=lambda row: getattr(row, column), serialize=serialize)


def page_of(serializer: type[Serializer[Any]]) -> Serializer[Any]:
    """How the API's documents show a page."""
    name = serializer.__name__.removesuffix("Serializer")
    fields = {"results": serializer(many=True), "next": URLField(allow_null=True)}
    page = inline_serializer(f"{name}Page", fields=fields)
    extend_schema_serializer(many=False)(type(page))
    return page


def paginate_by(
    request: Request,
    fetch: Callable[[Key, int], Sequence[Row]],
    *,
    key_of: Callable[[Row], Key],
    serialize: Callable[[Sequence[Row]], Sequence[Any]],
) -> Response:
    """A page of what `fetch(key, limit)` returns: the first rows after `key`, from the start if it is None."""
    limit = _limit(request)
    found = fetch(_cursor(request), limit + 1)
    rows = found[:limit]
    following = _url_after(request, key_of(rows[-1])) if len(found) > limit else None
    return Response({"results": serialize(rows), "next": following})


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if text.isascii() and text.isdigit() and len(text) < 5 and 1 <= (limit := int(text)) <= MAX_LIMIT:
        return limit
    raise InvalidRequestError(f"limit: must be an integer from 1 to {MAX_LIMIT}.")


def _cursor(request: Request) -> Key:
    text = request.query_params.get("cursor")
    if text is None:
        return None
    try:
        return signing.loads(text, salt=_salt(request))
    except signing.BadSignature as error:
        raise InvalidRequestError("cursor: must be one that this list gave.") from error


def _url_after(request: Request, key: Key) -> str:
    query: QueryDict = request.query_params.copy()
    query["cursor"] = signing.dumps(key, salt=_salt(request))
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")


def _salt(request: Request) -> str:
    return f"cursor:{request.path}"
