"""The metadata of a module: the body of POST /v2/modules/user-defined, and `module.json` in a package.

Both are the vendor's module object. Unknown fields are kept unchanged. Known fields must have the right type; an error
lists all wrong ones.
"""

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modules_app.operating_systems import ANY, operating_system

#: The most successes of `modfleet pack` in one `module.json`: one for each server.
MOST_SCRATCH_SUCCESSES = 16
#: The required fields of POST /v2/modules/user-defined, as documented.
MODULE_OBJECT_FIELDS = (
    "module_name",
    "version",
    "semantic_version",
    "display_name",
    "commands",
    "command_line_args",
    "capabilities",
    "min_redis_version",
)
#: The required fields of `module.json`, as documented for the upload of an artifact.
PACKAGE_FIELDS = ("module_name", "version", "semantic_version", "min_redis_version", "commands", "capabilities")

#: Redis stores a module's version as an int.
MAX_VERSION = 2**31 - 1
#: The most operating systems of one package.
MAX_OPERATING_SYSTEMS = 16
#: The message lists so many wrong fields, and counts the others.
LISTED_FIELDS = 20

#: Fields of one platform's build, or of its packing: two packages of one module version may differ in them.
BUILD_FIELDS = frozenset(
    {"architecture", "os", "operating_systems", "os_list", "sha256", "module_file", "scratch_successes"}
)


class InvalidMetadata(ValueError):
    """The module object is not valid. `fields`: what is wrong, by field."""

    #: Stable, for machines. The status is 406.
    code = "invalid_module"

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        listed = [f"{name}: {wrong}" for name, wrong in list(self.fields.items())[:LISTED_FIELDS]]
        if len(self.fields) > LISTED_FIELDS:
            listed.append(f"and {len(self.fields) - LISTED_FIELDS} more")
        super().__init__("; ".join(listed))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleMetadata:
    """A valid module object. An absent optional text is empty."""

    module_name: str
    version: int
    semantic_version: str
    min_redis_version: str
    #: Only the names: arity, key positions and flags are in `document`.
    commands: tuple[str, ...]
    capabilities: tuple[str, ...]
    display_name: str
    command_line_args: str
    compatible_redis_version: str
    #: Only the names: addresses and digests are in `document`.
    dependencies: tuple[str, ...]
    #: Name of the shared object in the package.
    module_file: str
    #: SHA-256 of the shared object, in lowercase hex.
    sha256: str
    #: The operating systems of the package, such as `rhel9`, sorted. Empty: any.
    operating_systems: tuple[str, ...]
    #: The complete object with unknown fields. `version` is an int, `dependencies` an object, known fields are not null.
    document: dict[str, Any]


def parse_metadata(value: Any, *, required: Collection[str] = MODULE_OBJECT_FIELDS) -> ModuleMetadata:
    """Return `value`, a JSON value, as a module object. `null` in a known field counts as absent.

    Raises: `InvalidMetadata` with every field that is wrong, or required and missing.
    """
    if not isinstance(value, dict):
        raise InvalidMetadata({"metadata": "must be a JSON object"})
    present = {name: item for name, item in value.items() if item is not None or name not in _CHECKS}
    wrong = {name: "is missing" for name in required if name not in present}
    document: dict[str, Any] = {}
    for name, item in present.items():
        try:
            document[name] = _CHECKS[name](item) if name in _CHECKS else item
        except _Wrong as error:
            wrong |= {name + inner: words for inner, words in error.places.items()}
    if wrong:
        raise InvalidMetadata(wrong)
    return ModuleMetadata(
        module_name=document["module_name"],
        version=document["version"],
        semantic_version=document["semantic_version"],
        min_redis_version=document["min_redis_version"],
        commands=tuple(command["command_name"] for command in document["commands"]),
        capabilities=tuple(document["capabilities"]),
        display_name=document.get("display_name", ""),
        command_line_args=document.get("command_line_args", ""),
        compatible_redis_version=document.get("compatible_redis_version", ""),
        dependencies=tuple(document.get("dependencies", ())),
        module_file=document.get("module_file", ""),
        sha256=document.get("sha256", ""),
        operating_systems=_named_systems(document.get("operating_systems") or document.get("os_list") or ()),
        document=document,
    )


def _named_systems(names: Iterable[str]) -> tuple[str, ...]:
    systems = {operating_system(name) for name in names}
    return () if ANY in systems else tuple(sorted(systems))


def differing_fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the known fields in which two valid documents differ, sorted.

    A field that is missing or empty in one of them is not a difference. Nor is the order of commands, flags and
    capabilities. Of dependencies only the names count: addresses and digests are those of one platform's build.
    """
    names = (a.keys() & b.keys() & _CHECKS.keys()) - BUILD_FIELDS
    return tuple(sorted(name for name in names if _contradict(name, a[name], b[name])))


def _contradict(name: str, one: Any, other: Any) -> bool:
    match name:
        case "commands":
            return _commands_contradict(one, other)
        case "capabilities":
            return set(one) != set(other)
        case "dependencies":
            return set(one) != set(other)
        case _:
            return "" not in (one, other) and bool(one != other)


def _commands_contradict(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    ones = {command["command_name"].lower(): command for command in one}
    others = {command["command_name"].lower(): command for command in other}
    if ones.keys() != others.keys():
        return True
    return any(
        _comparable(ones[name], field) != _comparable(others[name], field)
        for name in ones
        for field in ones[name].keys() & others[name].keys() & _COMMAND_CHECKS.keys() - {"command_name"}
    )


def _comparable(command: dict[str, Any], field: str) -> Any:
    return set(command[field]) if field == "flags" else command[field]


class _Wrong(Exception):
    """The problems by their place in the value; an empty place is the value itself."""

    def __init__(self, words: str = "", *, places: Mapping[str, str] | None = None) -> None:
        super().__init__(words)
        self.places = places or {"": words}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong("must be a text")
    return value


def _filled_text(value: Any) -> str:
    if not _text(value).strip():
        raise _Wrong("must not be empty")
    return _text(value)


def split_arguments(text: str) -> tuple[str, ...]:
    """Return the words of `command_line_args`, split as a shell does it. Raises: `ValueError`."""
    return tuple(shlex.split(text))


def _arguments(value: Any) -> str:
    # They become part of a line in the server's configuration: a line break would start another directive.
    if not _text(value).isprintable():
        raise _Wrong("must not contain line breaks or control characters")
    try:
        split_arguments(value)
    except ValueError as error:  # found here, and not on every node
        raise _Wrong(f"cannot be split into words: {error}") from error
    return _text(value)


def _module_name(value: Any) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", _text(value)) or value in {".", ".."}:
        raise _Wrong("must be 1 to 128 letters, digits, '_', '.' or '-'")
    return _text(value)


def _file_name(value: Any) -> str:
    if not is_file_name(_text(value)):
        raise _Wrong("must be a plain file name")
    return _text(value)


def is_file_name(name: str) -> bool:
    """Return True if `name` is a plain file name, which cannot lead out of a directory."""
    return (
        name not in {"", ".", ".."} and name.isprintable() and not set(name) & set("/\\") and len(name.encode()) <= 255
    )


def _redis_version(value: Any) -> str:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}([-+][A-Za-z0-9.+-]{1,64})?", _text(value)):
        raise _Wrong("must be a version such as 7.2 or 7.2.4")
    return _text(value)


def _optional_redis_version(value: Any) -> str:
    return _redis_version(value) if value != "" else ""


def _whole(value: Any, *, least: int = -MAX_VERSION - 1) -> int:
    """Return a whole number. RAMP writes versions as floats (10203.0), so a float without a fraction is accepted."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Wrong("must be a whole number")
    if not least <= value <= MAX_VERSION:
        raise _Wrong(f"must be between {least} and {MAX_VERSION}")
    return value


def _version(value: Any) -> int:
    return _whole(value, least=0)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("must be true or false")
    return value


def _digest(value: Any) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", _text(value)):
        raise _Wrong("must be a SHA-256: 64 hexadecimal digits")
    return _text(value).lower()


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong("must be an object")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _Wrong("must be a list of texts")
    return value


def _commands(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise _Wrong("must be a list of objects")
    checked: list[dict[str, Any]] = []
    wrong: dict[str, str] = {}
    for index, item in enumerate(value):
        try:
            checked.append(_checked(item, _COMMAND_CHECKS, required="command_name"))
        except _Wrong as error:
            wrong |= {f"[{index}]{inner}": words for inner, words in error.places.items()}
    if wrong:
        raise _Wrong(places=wrong)
    # A server ignores the case of command names.
    if len({each["command_name"].lower() for each in checked}) < len(checked):
        raise _Wrong("must not name the same command twice")
    return checked


def _operating_systems(value: Any) -> list[str]:
    """Return the names unchanged: `ModuleMetadata.operating_systems` has their usual form."""
    names = _texts(value)
    if len(names) > MAX_OPERATING_SYSTEMS or not all(operating_system(name) for name in names):
        raise _Wrong(f"must be at most {MAX_OPERATING_SYSTEMS} names such as rhel9 or ubuntu22")
    return names


def _dependencies(value: Any) -> dict[str, Any]:
    """Return the dependencies by name. Some manifests have a list of objects with a name, or of names."""
    if isinstance(value, list):
        value = _named(value)
    if not isinstance(value, dict) or not all(is_file_name(name) for name in value):
        raise _Wrong("must be an object whose keys are plain names")
    checked: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, item in value.items():
        try:
            checked[name] = _checked(item, _DEPENDENCY_CHECKS)
        except _Wrong as error:
            wrong |= {f".{name}{inner}": words for inner, words in error.places.items()}
    if wrong:
        raise _Wrong(places=wrong)
    return checked


def _named(items: list[Any]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for item in items:
        entry = {"name": item} if isinstance(item, str) else item
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise _Wrong("must have a name in each item of the list")
        if entry["name"] in built:
            raise _Wrong("must not name the same dependency twice")
        built[entry["name"]] = {key: inner for key, inner in entry.items() if key != "name"}
    return built


def _checked(value: Any, checks: Mapping[str, Callable[[Any], Any]], *, required: str = "") -> dict[str, Any]:
    """Return `value` as an object whose fields pass `checks`. Unknown fields stay, known fields that are null are removed."""
    present = {name: item for name, item in _object(value).items() if item is not None or name not in checks}
    wrong = {f".{required}": "is missing"} if required and required not in present else {}
    for name, check in checks.items():
        try:
            present |= {name: check(present[name])} if name in present else {}
        except _Wrong as error:
            wrong |= {f".{name}{inner}": words for inner, words in error.places.items()}
    if wrong:
        raise _Wrong(places=wrong)
    return present


def _scratch_successes(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > MOST_SCRATCH_SUCCESSES:
        raise _Wrong(f"must be a list of at most {MOST_SCRATCH_SUCCESSES} objects")
    checked = [_checked(each, _SUCCESS_CHECKS) for each in value]
    if any(each.keys() < {"server", "platform", "files_sha256", "args", "scratch_args"} for each in checked):
        raise _Wrong("must have server, platform, files_sha256, args and scratch_args in each object")
    return checked


_SUCCESS_CHECKS: dict[str, Callable[[Any], Any]] = {
    "server": _filled_text,
    "platform": _filled_text,
    "files_sha256": _digest,
    "args": _texts,
    "scratch_args": _texts,
    "has_types": _flag,
    "aux_data": _flag,
    "commands": _texts,
    "options": _texts,
    "differences": _texts,
}
_COMMAND_CHECKS: dict[str, Callable[[Any], Any]] = {
    "command_name": _filled_text,
    "command_arity": _whole,
    "first_key": _whole,
    "last_key": _whole,
    "step": _whole,
    "flags": _texts,
}
_DEPENDENCY_CHECKS: dict[str, Callable[[Any], Any]] = {"url": _text, "sha256": _digest}
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "module_name": _module_name,
    "version": _version,
    "semantic_version": _filled_text,
    "display_name": _text,
    "commands": _commands,
    "command_line_args": _arguments,
    "scratch_args": _arguments,
    "scratch_successes": _scratch_successes,
    "capabilities": _texts,
    "min_redis_version": _redis_version,
    "compatible_redis_version": _optional_redis_version,
    "min_redis_pack_version": _text,
    "author": _text,
    "email": _text,
    "homepage": _text,
    "license": _text,
    "description": _text,
    "capability_name": _text,
    "config_command": _text,
    "bigstore_version_2_support": _flag,
    "crdb": _object,
    "dependencies": _dependencies,
    "architecture": _text,
    "os": _text,
    "operating_systems": _operating_systems,
    "os_list": _operating_systems,
    "sha256": _digest,
    "module_file": _file_name,
}
#: The known fields of a module object. Other fields are kept, and not used.
KNOWN_FIELDS = frozenset(_CHECKS)
