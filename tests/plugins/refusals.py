"""What the API answers in any test is among what its documents say that the operation may refuse."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.permissions import Access
from api.refusals import codes_of, refusals_of

#: Of every path: the documents say them once, and not with each operation.
EVERYWHERE = {"method_not_allowed", "internal_error", "database_unavailable", "storage_full"}


@pytest.fixture(autouse=True, scope="session")
def _declared_refusals() -> Iterator[None]:
    real = APIView.finalize_response

    def finalize(view: Any, request: Any, response: Response, *args: Any, **kwargs: Any) -> Response:
        code = response.data.get("error_code") if isinstance(getattr(response, "data", None), dict) else None
        action = getattr(view, "action", None) or request.method.lower()
        is_ours = apps.is_installed(type(view).__module__.partition(".")[0]) and hasattr(view, "permissions")
        if response.status_code >= 400 and is_ours and hasattr(view, action):
            public = view.permissions.get(request.method) is Access.PUBLIC
            declared = refusals_of(getattr(view, action), request.method, public=public, takes_body=True)
            known = codes_of(declared) | EVERYWHERE
            assert code in known, f"{request.method} {request.path}: {code} is not declared by @refuses"
        return real(view, request, response, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(APIView, "finalize_response", finalize)
        yield
