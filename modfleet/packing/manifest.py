"""Build the module.json of a package. Options override the manifest, which overrides the module and the defaults."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modfleet.packing import PackError
from modfleet.packing.loading import Loaded
from modfleet.packing.write import sha256_of
from modules_app.metadata import KNOWN_FIELDS, MODULE_OBJECT_FIELDS, InvalidMetadata, parse_metadata

#: Arguments to load the module with here, if they differ from those of the nodes.
RUN_ARGS = "run_command_line_args"
#: What only a trial decides, and no manifest.
SUCCESSES = "scratch_successes"
#: Fields that the vendor's packer adds to those of the module object.
_PACKER_FIELDS = frozenset({"ramp_format_version", "git_sha", "speedb_git_sha"})

_DEFAULTS: dict[str, Any] = {
    "author": "",
    "email": "",
    "homepage": "",
    "license": "",
    "description": "",
    "capability_name": "",
    "capabilities": [],
    "command_line_args": "",
    "config_command": "",
    "crdb": {},
    "dependencies": {},
    "bigstore_version_2_support": False,
    "min_redis_pack_version": "5.2",
    "operating_systems": [],
    "ramp_format_version": 1,
}


class _Loader(yaml.SafeLoader):
    """YAML that reads versions and dates as text, so that `min_redis_version: 7.10` is not 7.1."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in {"float", "timestamp"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """An inspected shared object; `platform` is like `linux/x86_64`."""

    path: Path
    platform: str


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the fields of a YAML file or a module.json. Raises: `PackError`."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader with fewer types
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(f"The manifest {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise PackError(f"The manifest {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise PackError(f"The manifest {path} must have one field and its value on each line, such as `license: MIT`.")
    allowed = KNOWN_FIELDS | _PACKER_FIELDS | {RUN_ARGS}
    # The vendor's packer also writes other fields, which are empty.
    unknown = [str(name) for name, value in document.items() if name not in allowed and value]
    if unknown:
        raise PackError(f"The manifest {path} has unknown fields: {', '.join(map(_with_suggestion, unknown))}.")
    return {name: value for name, value in document.items() if name in allowed}


def module_json(
    binary: Binary,
    *,
    loaded: Loaded | None,
    manifest: Mapping[str, Any],
    flags: Mapping[str, Any],
    dependencies: Sequence[Path],
) -> dict[str, Any]:
    """Return the complete document. `loaded`: None if the module was not loaded.

    Raises: `PackError` with every field that is missing, wrong or contradicts the module.
    """
    given = {
        name: value
        for name, value in {**manifest, **flags}.items()
        if name not in {RUN_ARGS, SUCCESSES} and value is not None
    }
    document = _DEFAULTS | _read(binary, loaded) | given
    document = _completed(document)
    try:
        document = parse_metadata(document, required=MODULE_OBJECT_FIELDS).document
    except InvalidMetadata as error:
        hint = " With --no-load, the manifest must have these fields." if loaded is None else ""
        raise PackError(f"The manifest and the options do not make a valid module.json: {error}.{hint}") from error
    for file in dependencies:
        if file.suffix == ".tgz":
            document["dependencies"].setdefault(file.stem, {}).setdefault("sha256", sha256_of(file))
    if loaded is not None:
        _refuse_contradictions(document, loaded)
    return document


def semantic(version: int) -> str:
    """Return `1.2.3` for `10203`."""
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"


def _read(binary: Binary, loaded: Loaded | None) -> dict[str, Any]:
    system, _, machine = binary.platform.partition("/")
    of_file = {
        "module_file": binary.path.name,
        "sha256": sha256_of(binary.path),
        "architecture": machine,
        "os": system.capitalize(),
    }
    if loaded is None:
        return of_file
    return of_file | {
        "module_name": loaded.module_name,
        "version": loaded.version,
        "commands": list(loaded.commands),
        "min_redis_version": loaded.redis_version,
        "compatible_redis_version": loaded.redis_version,
    }


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the fields that other fields decide, unless it has them."""
    name, version = document.get("module_name"), document.get("version")
    derived = {"display_name": name, "compatible_redis_version": document.get("min_redis_version")}
    if isinstance(version, int):
        derived["semantic_version"] = semantic(version)
    return {key: value for key, value in derived.items() if value is not None} | document


def _refuse_contradictions(document: Mapping[str, Any], loaded: Loaded) -> None:
    """Refuse a name, version or command that the module does not have: a node would refuse it too."""
    wrong = [
        f"{field} is {document[field]!r}, but the module reports {truth!r}"
        for field, truth in (("module_name", loaded.module_name), ("version", loaded.version))
        if document[field] != truth
    ]
    has = {each["command_name"].lower() for each in loaded.commands}
    missing = [each["command_name"] for each in document["commands"] if each["command_name"].lower() not in has]
    if missing:
        wrong.append(f"commands has {', '.join(missing)}, but the module does not add them")
    if wrong:
        raise PackError(f"The manifest contradicts the module: {'; '.join(wrong)}. Fix the manifest or the module.")


def _with_suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, sorted(KNOWN_FIELDS), n=1)
    return f"{name} (did you mean {near[0]}?)" if near else name
