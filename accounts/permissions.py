"""The permissions of a view: one for each method. A method without one is refused.

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
    from rest_framework.views import APIView  # it imports this module, by the settings


class Access(Enum):
    """Used instead of a permission."""

    #: Anyone, without credentials.
    PUBLIC = auto()
    #: Any user, whatever the role.
    SIGNED_IN = auto()


#: The type of a view's `permissions`, by method. HEAD counts as GET.
Requirements = Mapping[str, Permission | Access]


class RequiresPermission(BasePermission):
    def has_permission(self, request: Request, view: "APIView") -> bool:
        method = "GET" if request.method == "HEAD" else request.method or ""
        if method == "OPTIONS" or not hasattr(view, method.lower()):
            return True  # DRF answers these itself, with the allowed methods
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
