"""The REST API as the command line uses it: documents in, documents out, two kinds of errors."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote, urlsplit

import httpx

from modfleet.failure import CommandError, ExitCode, UsageError
from modfleet.profile import Access

#: JSON of the API's.
Document = Any
#: A list of values repeats its parameter.
Query = str | int | list[str]

MODULES = "/v2/modules/user-defined"
ARTIFACTS = "/v2/modules/user-defined/artifacts"
ROLLOUTS = "/v2/rollouts"
NODES = "/v2/nodes"
EVENTS = "/v2/events"
FREEZE = "/v2/freeze"
USERS = "/v1/users"
AUTHORIZE = "/v1/users/authorize"

PAGE = 1000
#: Seconds. An upload is answered when it is checked and stored.
PATIENCE, UPLOAD_PATIENCE = 30.0, 600.0
#: What a proxy answers for a control plane that it does not reach.
AWAY = {httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT}

#: What to do next, by `error_code`.
NEXT_STEPS: Mapping[str, str] = {
    "artifact_not_found": "`modfleet push FILE.zip` uploads it, `modfleet artifacts` lists what there is.",
    "dependency_cycle": "Mend the dependencies in the modules' module.json.",
    "fleet_frozen": "`modfleet freeze` says why, `modfleet thaw` lifts it.",
    "missing_dependency": "`modfleet push FILE.zip` uploads a package.",
    "module_not_found": "`modfleet push FILE.zip` registers it, `modfleet modules` lists what there is.",
    "not_found": "Is the URL right (--url)?",
    "no_nodes": "`modfleet nodes` lists those that there are.",
    "node_not_found": "`modfleet nodes` lists those that there are.",
    "not_gated": "`modfleet rollout status UID` says what it waits for.",
    "permission_denied": "Ask an admin for it, or sign in as somebody else: `modfleet login`.",
    "plan_changed": "Look at `modfleet rollout plan` again.",
    "rollout_final": "`modfleet rollout status UID` says how.",
    "rollout_in_progress": "`modfleet rollout watch UID` follows it, --supersede takes over from it.",
    "rollout_not_found": "`modfleet rollout list` lists those that there are.",
    "unauthenticated": "Run `modfleet login`, or set MODFLEET_USER and MODFLEET_PASSWORD.",
    "unknown_node": "`modfleet nodes` lists those that there are.",
    "user_not_found": "`modfleet users` lists those that there are.",
    "wrong_phase": "`modfleet rollout why UID` says what it waits for.",
}


class RefusedError(CommandError):
    """The control plane's answer is an error."""

    def __init__(self, *, status: int, error_code: str, description: str, retry_after: str = "") -> None:
        self.status = status
        self.error_code = error_code
        self.description = description
        #: Seconds to wait, if the answer says so.
        self.retry_after = int(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
        is_said = "try again in" in description
        later = f"Try again in {retry_after} s." if retry_after and not is_said else ""
        super().__init__(" ".join(filter(None, (_sentence(description), later, NEXT_STEPS.get(error_code, "")))))
        if status in {httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED}:
            self.code = ExitCode.USAGE


class UnreachableError(CommandError):
    """There is no answer."""

    code = ExitCode.UNREACHABLE


class Client:
    """One control plane, with somebody's credentials. All methods raise `RefusedError` and `UnreachableError`."""

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
        """Of an answer that is no JSON."""
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
        """The list's first `most` documents, or all, page by page."""
        return islice(self._pages(path, {**(query or {}), "limit": min(most or PAGE, PAGE)}), most)

    def changed(self, path: str, *, etag: str, wait: float) -> tuple[Document, str] | None:
        """The document and its ETag once it is another than that of `etag`; None if it is still that after `wait`
        seconds."""
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
        """The artifact, and whether it is new. The file is streamed."""
        files = {"module": (name, file, "application/zip")}
        response = self._send("POST", ARTIFACTS, files=files, timeout=UPLOAD_PATIENCE)
        return _document(response), response.status_code == httpx.codes.CREATED

    def _pages(self, path: str, query: Mapping[str, Query]) -> Iterator[Document]:
        following: str | None = ""
        while following is not None:
            # Of `next` only the query: a proxy may have another idea of our scheme and host, and credentials go
            # nowhere else.
            page = _document(self._send("GET", f"{path}?{following}" if following else path, params=query))
            yield from page["results"]
            following, query = urlsplit(page["next"]).query if page["next"] else None, {}

    def _send(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, **more: Any) -> httpx.Response:
        try:
            # An empty mapping would take away the query that the path has.
            response = self._http.request(method, path, params=params or None, **more)
        except UnicodeEncodeError as error:
            raise UsageError("A value is no text in UTF-8.") from error
        except httpx.UnsupportedProtocol as error:
            raise UsageError(f"{self.url} is no URL of a control plane: see --url and MODFLEET_URL.") from error
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"{self.url} cannot be reached ({_reason(error)}): is it running, and is the URL right (--url)?"
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
            )
        except (ValueError, KeyError, TypeError):
            if response.status_code in AWAY:
                return UnreachableError(f"{self.url} is away: a proxy answers {response.status_code}. Try again later.")
            return UsageError(
                f"{self.url} does not answer like a control plane ({response.status_code}): is the URL right (--url)?"
            )


def path_to(collection: str, *names: str) -> str:
    """Of one thing in a collection, and further below it. Raises: `UsageError`."""
    if wrong := [name for name in names if name in {"", ".", ".."} or "/" in name]:
        raise UsageError(f"{wrong[0]!r} is no name.")
    # Undecodable bytes of an argument are sent as they were typed.
    return "/".join((collection, *(quote(name, safe="", errors="surrogateescape") for name in names)))


def _json(body: Document) -> dict[str, Any]:
    """Raises: `UsageError` for what JSON does not have, such as a number that is infinite."""
    try:
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError("A value is no text in UTF-8.") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"What is to be sent is no JSON: {error}.") from error
    return {"content": content, "headers": {"Content-Type": "application/json"}}


def _document(response: httpx.Response) -> Document:
    try:
        return response.json()
    except ValueError as error:
        raise UsageError(
            f"{response.url.copy_with(path='/', query=None)} does not answer like a control plane: is the URL right "
            "(--url)?"
        ) from error


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _reason(error: httpx.HTTPError) -> str:
    text = " ".join(str(error).split())
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not trusted; --cacert FILE names one to trust"
    return text or type(error).__name__
