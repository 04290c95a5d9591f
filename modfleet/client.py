"""Call the REST API: JSON documents in and out, and two kinds of errors."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote, urlsplit

import httpx

from modfleet.failure import CommandError, ExitCode, UsageError
from modfleet.profile import Access

#: A JSON value of the API.
Document = Any
#: A list sends the parameter once for each value.
Query = str | int | list[str]

MODULES = "/v2/modules/user-defined"
ARTIFACTS = "/v2/modules/user-defined/artifacts"
ROLLOUTS = "/v2/rollouts"
NODES = "/v2/nodes"
JOIN_TOKENS = "/v2/join-tokens"
EVENTS = "/v2/events"
HEAD = "/v2/events/head"
FREEZE = "/v2/freeze"
IGNORED_REPLICAS = "/v2/ignored-replicas"
USERS = "/v1/users"
AUTHORIZE = "/v1/users/authorize"

PAGE = 1000
#: Seconds to wait for an answer. An upload is answered once it is checked and stored.
PATIENCE, UPLOAD_PATIENCE = 30.0, 600.0
#: Statuses of a proxy that does not reach the control plane.
GATEWAY_ERRORS = {httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT}

#: The next step, by `error_code`.
NEXT_STEPS: Mapping[str, str] = {
    "artifact_not_found": "`modfleet push FILE.zip` uploads it; `modfleet artifacts` lists all artifacts.",
    "dependency_cycle": "Fix the dependencies in the modules' module.json.",
    "fleet_frozen": "`modfleet freeze` shows the reason; `modfleet thaw` ends the freeze.",
    "ignored_replica_not_found": "`modfleet nodes --tree` lists all ignored replicas.",
    "in_use": "`modfleet rollout start ... --action remove --even-if-used` removes it anyway.",
    "join_token_not_found": "`modfleet nodes tokens` lists all join tokens.",
    "missing_dependency": "`modfleet push FILE.zip` uploads a module.",
    "module_not_found": "`modfleet push FILE.zip` registers it; `modfleet modules` lists all modules.",
    "not_found": "Check the URL (--url).",
    "no_nodes": "`modfleet nodes` lists all nodes.",
    "node_not_found": "`modfleet nodes` lists all nodes.",
    "node_not_signed": "`modfleet nodes add NODE` creates a token to join with.",
    "not_gated": "`modfleet rollout status UID` shows what the rollout waits for.",
    "one_way": "`modfleet rollout why UID` shows what the node has shown; docs/howto/restarts.md has the way back.",
    "permission_denied": "Ask an admin for the permission, or sign in as another user with `modfleet login`.",
    "plan_changed": "Run `modfleet rollout plan` again.",
    "rollout_final": "`modfleet rollout status UID` shows the details.",
    "rollout_in_progress": "`modfleet rollout watch UID` shows its progress; --supersede cancels what it has not started.",
    "rollout_not_found": "`modfleet rollout list` lists all rollouts.",
    "unauthenticated": "Run `modfleet login`, or set MODFLEET_USER and MODFLEET_PASSWORD.",
    "unknown_node": "`modfleet nodes` lists all nodes.",
    "rollback_of_adoption": "`modfleet rollout start MODULE VERSION --action remove` unloads the module.",
    "user_not_found": "`modfleet users` lists all users.",
    "wrong_phase": "`modfleet rollout why UID` shows what the rollout waits for.",
}


_UID = re.compile(r"\b[0-9a-f]{32}\b")


class RefusedError(CommandError):
    """The control plane answered with an error."""

    def __init__(
        self, *, status: int, error_code: str, description: str, retry_after: str = "", path: str = ""
    ) -> None:
        self.status = status
        self.error_code = error_code
        self.description = description
        #: Seconds to wait before the next attempt, if the answer has them.
        self.retry_after = int(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
        says_when = "try again in" in description
        later = f"Try again in {retry_after} s." if retry_after and not says_when else ""
        super().__init__(
            " ".join(filter(None, (_sentence(description), later, _next_step(error_code, description, path))))
        )
        if status in {httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED}:
            self.code = ExitCode.USAGE


def _next_step(error_code: str, description: str, path: str) -> str:
    """Return the next step, with the uid of the rollout that the refusal names, else of the one that the request was for."""
    # A rollout in progress that refuses a request is another one than that of the path.
    places = (description,) if error_code == "rollout_in_progress" else (description, path)
    uids = [uid for place in places for uid in _UID.findall(place)]
    step = NEXT_STEPS.get(error_code, "")
    return step.replace("UID", uids[0]) if uids else step


class UnreachableError(CommandError):
    """The control plane did not answer."""

    code = ExitCode.UNREACHABLE


class Client:
    """One control plane and the credentials for it. All methods raise `RefusedError` and `UnreachableError`."""

    def __init__(self, access: Access, *, patience: float = PATIENCE) -> None:
        self.url = access.url
        self._http = httpx.Client(
            base_url=access.url,
            auth=access.auth,
            verify=access.trust(),
            timeout=httpx.Timeout(patience, connect=min(10.0, patience)),
            headers={"Accept": "application/json", "User-Agent": "modfleet-cli"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: Query) -> Document:
        return _document(self._send("GET", path, params=query))

    def text(self, path: str, **query: Query) -> str:
        """Return an answer that is not JSON."""
        return self._send("GET", path, params=query).text

    def post(self, path: str, body: Document = None) -> Document:
        return _document(self._send("POST", path, **_json(body)) if body is not None else self._send("POST", path))

    def put(self, path: str, body: Document) -> Document:
        return _document(self._send("PUT", path, **_json(body)))

    def patch(self, path: str, body: Document) -> Document:
        return _document(self._send("PATCH", path, **_json(body)))

    def delete(self, path: str) -> Document:
        return _document(self._send("DELETE", path))

    def every(
        self, path: str, query: Mapping[str, Query] | None = None, *, most: int | None = None
    ) -> Iterator[Document]:
        """Yield the first `most` documents of a list, or all. Pages are read as needed."""
        return islice(self._pages(path, {**(query or {}), "limit": min(most or PAGE, PAGE)}), most)

    def changed(self, path: str, *, etag: str, wait: float) -> tuple[Document, str] | None:
        """Return the document and its ETag once it differs from `etag`; None if it has not changed after `wait` seconds."""
        response = self._send(
            "GET",
            path,
            params={"wait": round(wait, 1)},
            headers={"If-None-Match": etag} if etag else {},
            timeout=wait + 15,
        )
        if response.status_code == httpx.codes.NOT_MODIFIED:
            return None
        return _document(response), response.headers.get("ETag", "")

    def upload(self, file: IO[bytes], *, name: str) -> tuple[Document, bool]:
        """Stream the file. Return the artifact, and True if it is new."""
        files = {"module": (name, file, "application/zip")}
        response = self._send("POST", ARTIFACTS, files=files, timeout=UPLOAD_PATIENCE)
        return _document(response), response.status_code == httpx.codes.CREATED

    def _pages(self, path: str, query: Mapping[str, Query]) -> Iterator[Document]:
        following: str | None = ""
        while following is not None:
            # Only the query of `next`: behind a proxy its scheme and host may differ, and credentials go only to
            # our URL.
            page = _document(self._send("GET", f"{path}?{following}" if following else path, params=query))
            yield from page["results"]
            following, query = urlsplit(page["next"]).query if page["next"] else None, {}

    def _send(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, **more: Any) -> httpx.Response:
        try:
            # An empty mapping would remove the query that the path has.
            response = self._http.request(method, path, params=params or None, **more)
        except UnicodeEncodeError as error:
            raise UsageError("A value is not valid UTF-8.") from error
        except httpx.UnsupportedProtocol as error:
            raise UsageError(f"{self.url} is not a URL of a control plane: set --url or MODFLEET_URL.") from error
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"{self.url} cannot be reached ({_reason(error)}). Is the control plane running, and is the URL (--url) right?"
            ) from error
        if response.is_error:
            raise self._error_of(response)
        return response

    def _error_of(self, response: httpx.Response) -> CommandError:
        try:
            body = response.json()
            return RefusedError(
                status=response.status_code,
                error_code=str(body["error_code"]),
                description=str(body["description"]),
                retry_after=response.headers.get("Retry-After", ""),
                path=response.request.url.path,
            )
        except (ValueError, KeyError, TypeError):
            if response.status_code in GATEWAY_ERRORS:
                return UnreachableError(
                    f"{self.url} is unavailable: a proxy answered {response.status_code}. Try again later."
                )
            return UsageError(
                f"{self.url} is not a control plane: its answer has status {response.status_code} and no error code. Check the URL "
                "(--url)."
            )


def path_to(collection: str, *names: str) -> str:
    """Return the path of one object in a collection, and of what is below it. Raises: `UsageError`."""
    if wrong := [name for name in names if name in {"", ".", ".."} or "/" in name]:
        raise UsageError(f"{wrong[0]!r} is not a valid name.")
    # Bytes of an argument that cannot be decoded are sent unchanged.
    return "/".join((collection, *(quote(name, safe="", errors="surrogateescape") for name in names)))


def _json(body: Document) -> dict[str, Any]:
    """Return the body as JSON. Raises: `UsageError` for a value that JSON does not have, such as infinity."""
    try:
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError("A value is not valid UTF-8.") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"The request cannot be written as JSON: {error}.") from error
    return {"content": content, "headers": {"Content-Type": "application/json"}}


def _document(response: httpx.Response) -> Document:
    try:
        return response.json()
    except ValueError as error:
        raise UsageError(
            f"{response.url.copy_with(path='/', query=None)} is not a control plane: its answer is not JSON. Check the URL "
            "(--url)."
        ) from error


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _reason(error: httpx.HTTPError) -> str:
    text = " ".join(str(error).split())
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not trusted; trust it with --cacert FILE"
    return text or type(error).__name__
