"""`/v1/users`, `/v1/users/authorize` and `/v1/cluster`, in the vendor's format."""

from typing import cast

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from accounts import selectors, services
from accounts.authentication import BasicAuthentication, TokenAuthentication
from accounts.credentials import verified_user
from accounts.errors import (
    AdminOnlyError,
    EmailTakenError,
    LastAdminError,
    NameTakenError,
    NameUsedBeforeError,
    SamePasswordError,
    UserNotFoundError,
    WeakPasswordError,
)
from accounts.models import User
from accounts.permissions import Access, Requirements
from accounts.roles import Permission, Role
from accounts.serializers import (
    AuthorizeSerializer,
    ClusterSerializer,
    NewUserSerializer,
    TokenSerializer,
    TtlSerializer,
    UserChangesSerializer,
    UserSerializer,
)
from accounts.tokens import issue_token
from api.client_address import client_address
from api.errors import InvalidRequestError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from api.fields import NothingSerializer
from api.idempotency import KeyReusedError, idempotent
from api.refusals import refuses
from eventstore import set_person


class Authorize(APIView):
    """Create a token for the Basic credentials in the header, or the credentials in the body."""

    authentication_classes = [BasicAuthentication]
    permissions: Requirements = {"POST": Access.PUBLIC}

    @extend_schema(request=AuthorizeSerializer, responses=TokenSerializer)
    @refuses(UnauthenticatedError)
    def post(self, request: Request) -> Response:
        """Create a token for the Basic credentials in the header, or the credentials in the body."""
        asked = AuthorizeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        user = request.user if request.user.is_authenticated else None
        if user is None and "username" in given:
            address = client_address(request.META)
            user = verified_user(given["username"], given["password"], address=address)
        if user is None:
            raise UnauthenticatedError
        set_person(user.get_username())
        return Response({"access_token": issue_token(user, ttl=given["ttl"])})


class RefreshToken(APIView):
    """Create a new token for a token that is still valid."""

    authentication_classes = [TokenAuthentication]
    permissions: Requirements = {"POST": Access.SIGNED_IN}

    @extend_schema(request=TtlSerializer, responses=TokenSerializer)
    def post(self, request: Request) -> Response:
        """Create a new token for a token that is still valid."""
        asked = TtlSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return Response({"access_token": issue_token(_caller(request), ttl=asked.validated_data["ttl"])})


class Users(ViewSet):
    permissions: Requirements = {
        "GET": Permission.VIEW_ALL_USERS_INFO,
        "POST": Permission.CREATE_NEW_USER,
    }

    @extend_schema(operation_id="users_list", responses=UserSerializer(many=True))
    def list(self, request: Request) -> Response:
        """List all users."""
        return Response(UserSerializer(selectors.all_users(), many=True).data)

    @extend_schema(operation_id="users_create", request=NewUserSerializer, responses={200: UserSerializer})
    @idempotent
    @refuses(NameTakenError, NameUsedBeforeError, EmailTakenError, WeakPasswordError, AdminOnlyError, KeyReusedError)
    def create(self, request: Request) -> Response:
        """Create a user."""
        asked = NewUserSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        user = services.create_user(
            name=given.get("name", given["email"]),
            email=given["email"],
            password=given["password"],
            role=Role(given["role"]),
            by=_caller(request),
        )
        return Response(UserSerializer(user).data)


class UserDetail(ViewSet):
    permissions: Requirements = {
        "GET": Permission.VIEW_USER_INFO,
        "PUT": Access.SIGNED_IN,  # all users may change their own password
        "DELETE": Permission.DELETE_USER,
    }

    @extend_schema(operation_id="users_retrieve", responses=UserSerializer)
    @refuses(UserNotFoundError, NotFoundError)
    def retrieve(self, request: Request, uid: int) -> Response:
        """Get a user."""
        return Response(UserSerializer(selectors.user_by_uid(uid)).data)

    @extend_schema(operation_id="users_update", request=UserChangesSerializer, responses=UserSerializer)
    @refuses(
        NameTakenError,
        NameUsedBeforeError,
        EmailTakenError,
        WeakPasswordError,
        AdminOnlyError,
        UserNotFoundError,
        NotFoundError,
        SamePasswordError,
        LastAdminError,
    )
    def update(self, request: Request, uid: int) -> Response:
        """Change a user. A user without this permission may change only their own password."""
        caller = _caller(request)
        if not caller.may(Permission.UPDATE_USER) and caller.uid != uid:
            raise PermissionDeniedError(f"This needs the permission {Permission.UPDATE_USER}.")
        asked = UserChangesSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        if not caller.may(Permission.UPDATE_USER) and asked.changes() != services.UserChanges(
            password=asked.changes().password
        ):
            raise PermissionDeniedError("You may change only your own password.")
        return Response(UserSerializer(services.update_user(uid, asked.changes(), by=caller)).data)

    @extend_schema(operation_id="users_destroy", responses={200: NothingSerializer})
    @refuses(UserNotFoundError, NotFoundError, LastAdminError, AdminOnlyError)
    def destroy(self, request: Request, uid: int) -> Response:
        """Delete a user."""
        services.delete_user(uid, by=_caller(request))
        return Response({})


class ClusterView(APIView):
    permissions: Requirements = {
        "GET": Permission.VIEW_CLUSTER_INFO,
        "PUT": Permission.UPDATE_CLUSTER,
    }

    @extend_schema(operation_id="cluster_retrieve", responses=ClusterSerializer)
    def get(self, request: Request) -> Response:
        """Get the cluster's settings."""
        return Response(ClusterSerializer(selectors.cluster()).data)

    @extend_schema(
        operation_id="cluster_update",
        request=ClusterSerializer,
        responses=ClusterSerializer,
        parameters=[
            OpenApiParameter("dry_run", bool, description="Return the settings as they would be, and change nothing.")
        ],
    )
    def put(self, request: Request) -> Response:
        """Change those of the cluster's settings that are given."""
        asked = ClusterSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        if _dry_run(request):
            changed = services.changed_settings(selectors.cluster(), **asked.validated_data)
            return Response(ClusterSerializer(changed).data)
        return Response(ClusterSerializer(services.update_cluster_settings(**asked.validated_data)).data)


def _caller(request: Request) -> User:
    return cast(User, request.user)


def _dry_run(request: Request) -> bool:
    match request.query_params.get("dry_run", "false").lower():
        case "true" | "1" | "":
            return True
        case "false" | "0":
            return False
        case _:
            raise InvalidRequestError("dry_run: must be true or false.")
