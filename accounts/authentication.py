"""The ways to authenticate a request: HTTP Basic (RFC 7617), a token, or the session of the admin site."""

import base64

from django.core.handlers.wsgi import WSGIRequest
from rest_framework import authentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.credentials import verified_user
from accounts.models import User
from accounts.tokens import user_of_token
from api.client_address import client_address
from api.statuses import BASIC_CHALLENGE
from eventstore import set_person


class BasicAuthentication(authentication.BaseAuthentication):
    """Login and password in UTF-8."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        scheme, _, encoded = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            login, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except ValueError as error:
            raise AuthenticationFailed("The Authorization header is malformed.") from error
        if not colon or not f"{login}{password}".isprintable():
            raise AuthenticationFailed("The Authorization header is malformed.")
        user = verified_user(login, password, address=client_address(request.META))
        if user is None:
            raise AuthenticationFailed("The user or the password is wrong.")
        set_person(user.username)
        return user, None

    def authenticate_header(self, request: Request) -> str:
        return BASIC_CHALLENGE


class TokenAuthentication(authentication.BaseAuthentication):
    """`JWT` is the vendor's name for the scheme, `Bearer` the standard one."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() not in {"jwt", "bearer"}:
            return None
        user = user_of_token(token.strip())
        if user is None:
            raise AuthenticationFailed("The token is expired, revoked, or for another server.")
        set_person(user.username)
        return user, None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="modfleet"'


class SessionAuthentication(authentication.SessionAuthentication):
    """The admin site's session. A change needs the CSRF token in a header: the check must not read the body."""

    def enforce_csrf(self, request: Request) -> None:
        # Only for POST, Django also searches the body.
        method = "PUT" if request.method == "POST" else request.method
        super().enforce_csrf(Request(WSGIRequest({**request.META, "REQUEST_METHOD": method})))
