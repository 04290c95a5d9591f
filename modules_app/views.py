"""`/v2/modules/user-defined`: the module objects of the cluster configuration store."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.errors import ModulesUploadDisabledError
from accounts.roles import Permission
from accounts.selectors import require_modules_upload_allowed
from api.fields import NothingSerializer
from api.idempotency import KeyReusedError, idempotent
from api.pagination import Listing, page_of, paginate
from api.refusals import refuses
from api.vendor import VendorViewSet
from modules_app import selectors, services
from modules_app.errors import (
    InvalidModuleError,
    MetadataMismatchError,
    ModuleExistsError,
    ModuleInUseError,
    ModuleNameTakenError,
    NoSuchModuleError,
    UnknownModuleError,
)
from modules_app.filters import ModuleFilters
from modules_app.serializers import ModuleObjectSerializer

MODULES = Listing(
    orders={"module_name": ("module_name", "version"), "version": ("version", "module_name")},
    default="module_name",
    filters=ModuleFilters,
)


class ModuleViewSet(VendorViewSet):
    permissions = {
        "GET": Permission.VIEW_CLUSTER_MODULES,
        "POST": Permission.MANAGE_CLUSTER_MODULES,
        "DELETE": Permission.MANAGE_CLUSTER_MODULES,
    }

    @extend_schema(
        operation_id="v2_modules_user_defined_list",
        parameters=MODULES.parameters,
        responses=page_of(ModuleObjectSerializer),
    )
    def list(self, request: Request) -> Response:
        """List module objects, by name and version."""
        return paginate(
            request,
            selectors.modules(),
            MODULES,
            serialize=lambda rows: [selectors.document_of(row) for row in rows],
        )

    @extend_schema(request=ModuleObjectSerializer, responses={200: ModuleObjectSerializer})
    @idempotent
    @refuses(
        ModulesUploadDisabledError,
        InvalidModuleError,
        ModuleExistsError,
        ModuleNameTakenError,
        MetadataMismatchError,
        KeyReusedError,
    )
    def create(self, request: Request) -> Response:
        """Create a module object. The same request again returns the same object."""
        require_modules_upload_allowed()
        uid = services.register_module(request.data)
        return Response(selectors.module_document(uid))

    @extend_schema(responses=ModuleObjectSerializer)
    @refuses(UnknownModuleError)
    def retrieve(self, request: Request, uid: str) -> Response:
        """Get a module object."""
        return Response(selectors.module_document(uid))

    @extend_schema(responses={200: NothingSerializer})
    @refuses(NoSuchModuleError, ModuleInUseError)
    def destroy(self, request: Request, uid: str) -> Response:
        """Delete a module object. No node may have loaded the module. Its artifact and its files on nodes stay."""
        services.delete_module(uid)
        return Response({})
