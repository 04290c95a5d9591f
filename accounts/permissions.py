"""What a view asks of its caller: it declares a permission for each method, and what it does not declare is refused.

class Modules(APIView):
    permissions = {"GET": Permission.VIEW_CLUSTER_MODULES, "POST": Permission.MANAGE_CLUSTER_MODULES}
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.roles import Permission

if TYPE_CHECKING:
    from rest_framework.views import APIView  # which imports this module by its name in the settings


class Access(Enum):
    """Instead of a permission."""

    #: Anybody, without credentials.
    PUBLIC = auto()
    #: Anybody with valid credentials, whatever the role.
    SIGNED_IN = auto()


#: Type of a view's `permissions`, by method; HEAD is GET.
Requirements = Mapping[str, Permission | Access]


class RequiresPermission(BasePermission):
    def has_permission(self, request: Request, view: "APIView") -> bool:
        method = "GET" if request.method == "HEAD" else request.method or ""
        if method == "OPTIONS" or not hasattr(view, method.lower()):
            return True  # DRF answers these by itself, with the methods that there are
        requirements: Requirements = getattr(view, "permissions", {})
        required = requirements.get(method)
        match required:
            case None:
                return False
            case Access.PUBLIC:
                return True
            case Access.SIGNED_IN:
                return bool(request.user.is_authenticated)
            case Permission():
                self.message = f"This needs the permission {required}."
                return request.user.is_authenticated and request.user.may(required)
