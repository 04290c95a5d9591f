"""Long lists in pages: `{"results": [...], "next": url or null}`, `?limit=`, `?ordering=` and an opaque `?cursor=`.

A cursor is the key of the last row on a page. So every page costs the same, and new rows neither shift nor repeat others.
A cursor is signed, so that clients cannot make one, and is for one order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core import signing
from django.db.models import Q, QuerySet
from django.http import QueryDict
from django_filters import FilterSet
from drf_spectacular.utils import OpenApiParameter, extend_schema_serializer, inline_serializer
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer, URLField

from api.errors import InvalidRequestError
from api.filters import parameters_of

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_OWN_PARAMETERS = ("limit", "cursor", "ordering")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The parameters of a list.

    `orders`: the allowed orders, each with its columns. They must not be null, and be unique together.
    """

    orders: Mapping[str, tuple[str, ...]]
    #: One of the orders. With a `-` in front it is reversed.
    default: str
    filters: type[FilterSet]

    @property
    def orderings(self) -> list[str]:
        return [sign + name for name in self.orders for sign in ("", "-")]

    @property
    def parameters(self) -> list[OpenApiParameter]:
        """Return the parameters for the OpenAPI document."""
        limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
        ordering = {"type": "string", "enum": self.orderings, "default": self.default}
        return [
            *parameters_of(self.filters),
            OpenApiParameter("limit", limit, description="Rows per page"),
            OpenApiParameter(
                "cursor", str, description="Where the page begins: the cursor in `next`, with the same ordering"
            ),
            OpenApiParameter("ordering", ordering, description="`-` reverses it"),
        ]


def paginate(
    request: Request,
    rows: QuerySet[Any],
    listing: Listing,
    *,
    serialize: Callable[[Sequence[Any]], Sequence[Any]],
    read: Callable[[QuerySet[Any]], Sequence[Any]] = list,
) -> Response:
    """Return the requested page. `read` runs the query; its rows must have the columns of the order as attributes.

    Raises: `InvalidRequestError`, also for a query parameter that is unknown or empty.
    """
    _refuse_unknown_and_empty(request, listing)
    limit, ordering = _limit(request), _ordering(request, listing)
    columns = listing.orders[ordering.removeprefix("-")]
    found = _filtered(request, rows, listing)
    if (after := _cursor(request, ordering)) is not None:
        found = found.filter(_beyond(columns, after, "lt" if ordering.startswith("-") else "gt"))
    sign = "-" if ordering.startswith("-") else ""
    page = read(found.order_by(*(sign + each for each in columns))[: limit + 1])
    following = None
    if len(page) > limit:
        page = page[:limit]
        following = _url_after(request, ordering, [getattr(page[-1], each) for each in columns])
    return Response({"results": serialize(page), "next": following})


def page_of(serializer: type[Serializer[Any]]) -> Serializer[Any]:
    """Return the serializer of a page, for the OpenAPI document."""
    name = serializer.__name__.removesuffix("Serializer")
    fields = {"results": serializer(many=True), "next": URLField(allow_null=True)}
    page = inline_serializer(f"{name}Page", fields=fields)
    extend_schema_serializer(many=False)(type(page))
    return page


def _refuse_unknown_and_empty(request: Request, listing: Listing) -> None:
    known = {*_OWN_PARAMETERS, *listing.filters.base_filters}
    if unknown := sorted(request.query_params.keys() - known):
        raise InvalidRequestError(f"{', '.join(unknown)}: unknown. This list has {', '.join(sorted(known))}.")
    if empty := sorted(name for name, values in request.query_params.lists() if "" in values):
        raise InvalidRequestError(f"{', '.join(empty)}: empty. Remove it, or give it a value.")


def _filtered(request: Request, rows: QuerySet[Any], listing: Listing) -> QuerySet[Any]:
    filters = listing.filters(request.query_params, queryset=rows, request=request)
    if not filters.is_valid():
        raise ValidationError({name: list(messages) for name, messages in filters.errors.items()})
    narrowed: QuerySet[Any] = filters.qs
    return narrowed


def _beyond(columns: Sequence[str], after: Sequence[Any], comparison: str) -> Q:
    """Match the rows after the row with the columns `after`. The first condition is for the index: the others are in OR."""
    behind = Q()
    for number, column in enumerate(columns):
        same = Q(**dict(zip(columns[:number], after, strict=False)))
        behind |= same & Q(**{f"{column}__{comparison}": after[number]})
    return Q(**{f"{columns[0]}__{comparison}e": after[0]}) & behind


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if text.isascii() and text.isdigit() and len(text) < 5 and 1 <= (limit := int(text)) <= MAX_LIMIT:
        return limit
    raise InvalidRequestError(f"limit: must be an integer from 1 to {MAX_LIMIT}.")


def _ordering(request: Request, listing: Listing) -> str:
    text = request.query_params.get("ordering", listing.default)
    if text not in listing.orderings:
        raise InvalidRequestError(f"ordering: must be one of {', '.join(listing.orderings)}.")
    return text


def _cursor(request: Request, ordering: str) -> Sequence[Any] | None:
    text = request.query_params.get("cursor")
    if text is None:
        return None
    try:
        made_for, after = signing.loads(text, salt=_salt(request))
    except (signing.BadSignature, ValueError, TypeError) as error:
        raise InvalidRequestError("cursor: must be one that this list has returned.") from error
    if made_for != ordering:
        raise InvalidRequestError(
            f"cursor: it is for the ordering {made_for}. For another ordering, start without a cursor."
        )
    return list(after)


def _url_after(request: Request, ordering: str, key: Sequence[Any]) -> str:
    query: QueryDict = request.query_params.copy()
    query["cursor"] = signing.dumps([ordering, key], salt=_salt(request))
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")


def _salt(request: Request) -> str:
    return f"cursor:{request.path}"
