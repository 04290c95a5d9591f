"""Renew an access token when half of its lifetime has passed."""

import base64
import json
import time
from collections.abc import Callable, Generator

import httpx

#: Least seconds between two requests for a new token.
ASK_AGAIN_SECONDS = 60.0


class TokenAuth(httpx.Auth):
    """Send a token, and call `keep` with each new one. A token that cannot be renewed is sent until it is refused."""

    requires_response_body = True

    def __init__(self, token: str, *, url: str, keep: Callable[[str], None] | None = None) -> None:
        self._url = url
        self._keep = keep
        self._not_before = 0.0
        self._take(token)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        now = time.time()
        if now >= max(self._renewed_at, self._not_before) and now < self._expires_at:
            self._not_before = now + ASK_AGAIN_SECONDS
            response = yield self._renewal()
            if response.status_code == httpx.codes.OK:
                self._take(response.json()["access_token"])
                if self._keep is not None:
                    self._keep(self._token)
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request

    def _take(self, token: str) -> None:
        self._token = token
        issued, self._expires_at = lifetime(token)
        self._renewed_at = (issued + self._expires_at) / 2

    def _renewal(self) -> httpx.Request:
        ttl = max(1, round(2 * (self._expires_at - self._renewed_at)))
        return httpx.Request(
            "POST",
            f"{self._url}/v1/users/refresh_jwt",
            json={"ttl": ttl},
            headers={"Authorization": f"Bearer {self._token}"},
        )


def lifetime(token: str) -> tuple[float, float]:
    """Return when a JWT (RFC 7519) was issued and when it expires, in seconds since 1970; infinity for other tokens."""
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["iat"]), float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return float("inf"), float("inf")
