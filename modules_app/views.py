"""`/v2/modules/user-defined`: the module objects of the cluster configuration store."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Q
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.roles import Permission
from accounts.selectors import require_modules_upload_allowed
from api.idempotency import idempotent
from api.pagination import page_of, paginate_by
from api.seed import SeedViewSet
from modules_app import selectors, services
from modules_app.models import Module
from modules_app.serializers import ModuleObjectSerializer


class ModuleViewSet(SeedViewSet):
    permissions = {
        "GET": Permission.VIEW_CLUSTER_MODULES,
        "POST": Permission.MANAGE_CLUSTER_MODULES,
        "DELETE": Permission.MANAGE_CLUSTER_MODULES,
    }

    @extend_schema(operation_id="v2_modules_user_defined_list", responses=page_of(ModuleObjectSerializer))
    def list(self, request: Request) -> Response:
        """List module objects, by name and version."""

        def fetch(after: Any, limit: int) -> Sequence[Module]:
            rows = selectors.modules()
            if after is not None:
                name, version = after
                rows = rows.filter(Q(module_name__gt=name) | Q(module_name=name, version__gt=version))
            return list(rows[:limit])

        return paginate_by(
            request,
            fetch,
            key_of=lambda row: [row.module_name, row.version],
            serialize=lambda rows: [selectors.document_of(row) for row in rows],
        )

    @extend_schema(request=ModuleObjectSerializer, responses={200: ModuleObjectSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Create a module object; the same object again is the same object."""
        require_modules_upload_allowed()
        uid = services.register_module(request.data)
        return Response(selectors.module_document(uid))

    @extend_schema(responses=ModuleObjectSerializer)
    def retrieve(self, request: Request, uid: str) -> Response:
        """One module object."""
        return Response(selectors.module_document(uid))

    @extend_schema(responses={200: dict})
    def destroy(self, request: Request, uid: str) -> Response:
        """Delete a module object. Its artifact and what nodes have stay as they are."""
        services.delete_module(uid)
        return Response({})
