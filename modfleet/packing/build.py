"""Make a package of a shared object: inspect it, load it, describe it, write the package, check it."""

import filecmp
import platform
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts_app.exceptions import InvalidArtifact
from artifacts_app.manifest import Member, files_digest
from artifacts_app.shared_object import read_shared_object
from modfleet.packing import PackError
from modfleet.packing.check import Report, check_package
from modfleet.packing.loading import Loaded, Tried, try_servers
from modfleet.packing.manifest import RUN_ARGS, Binary, module_json
from modfleet.packing.write import pack, sha256_of
from modules_app.metadata import is_file_name
from rollout.agent.inspection.host import PLATFORM, read_operating_system


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to pack. `to`: None for a name of module, version, operating systems and machine, in this directory."""

    module: Path
    to: Path | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    #: Files for the package's `deps/`.
    dependencies: tuple[Path, ...] = ()
    load: bool = True
    #: Programs of servers to load the module into. Empty: the embedded Valkey.
    servers: tuple[str, ...] = ()
    #: Replace another file at `to`.
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """`has_changed` is False if the file already was this package."""

    path: Path
    report: Report
    has_changed: bool
    #: What each server said.
    tried: tuple[Tried, ...] = ()


def make_package(order: Order) -> Packed:
    """Write the package once it is complete and checked. Raises: `PackError`."""
    try:
        binary = _inspect(order.module)
        _refuse_dependencies(order)
        if order.to is not None:
            _refuse_target(order.to, order)
        return _make(order, binary)
    except OSError as error:
        raise PackError(f"{error.filename or order.module}: {error.strerror or error}.") from error


def _make(order: Order, binary: Binary) -> Packed:
    tried: tuple[Tried, ...] = ()
    if order.load:
        _refuse_other_machine(binary)
        args = _arguments(order)
        tried = try_servers(order.servers, binary.path, args=args, dependencies=order.dependencies)
    loaded = _oldest(tried)
    document = module_json(
        binary, loaded=loaded, manifest=order.manifest, flags=order.flags, dependencies=order.dependencies
    )
    if successes := _successes(order, tried):
        document["scratch_successes"] = successes
    machine = document["architecture"]
    named = "-".join([document["module_name"], document["semantic_version"], *document["operating_systems"], machine])
    to = order.to or Path(f"{named}.zip")
    with tempfile.TemporaryDirectory(prefix=".modfleet-", dir=to.parent) as directory:
        package = pack(binary.path, document, Path(directory) / to.name, dependencies=order.dependencies)
        report = check_package(package)
        if report.problems:
            problems = "; ".join(each["description"] for each in report.problems)
            raise PackError(f"The control plane would refuse the package: {problems}.")
        has_changed = not (to.exists() and filecmp.cmp(package, to, shallow=False))
        if has_changed:
            _refuse_target(to, order, has_changed=True)
            package.replace(to)
    return Packed(path=to, report=check_package(to), has_changed=has_changed, tried=tried)


def _oldest(tried: tuple[Tried, ...]) -> Loaded | None:
    """Return what the oldest server that has loaded the module says."""
    loaded = [each.loaded for each in tried if each.loaded is not None]
    return min(loaded, key=lambda each: [int(part) for part in re.findall(r"\d+", each.redis_version)], default=None)


def _inspect(module: Path) -> Binary:
    """Check that the file is a complete shared object: a truncated one would kill the server that loads it."""
    with module.open("rb") as file:
        try:
            return Binary(path=module, platform=read_shared_object(file).platform)
        except InvalidArtifact as error:
            raise PackError(f"{module} is not a module: {error}.") from error


def _refuse_dependencies(order: Order) -> None:
    names = [file.name for file in order.dependencies]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PackError(f"Two files for deps/ have the same name: {', '.join(twice)}.")
    if odd := [name for name in names if not is_file_name(name)]:
        raise PackError(f"A file for deps/ has a name that packages do not allow: {', '.join(map(repr, odd))}.")


def _refuse_target(to: Path, order: Order, *, has_changed: bool = False) -> None:
    if not to.parent.is_dir():
        raise PackError(f"There is no directory {to.parent}. Create it, or choose another -o.")
    if to.is_dir():
        raise PackError(f"{to} is a directory. Give a file with -o, such as {to / order.module.stem}.zip.")
    if to.exists() and any(to.samefile(each) for each in (order.module, *order.dependencies)):
        raise PackError(f"{to} is an input of the package. Choose another -o.")
    if has_changed and to.exists() and not order.force:
        raise PackError(f"{to} exists and is another package. Replace it with --force.")


def _refuse_other_machine(binary: Binary) -> None:
    here = f"{platform.system().lower()}/{platform.machine()}"
    if binary.platform != here:
        raise PackError(
            f"{binary.path.name} is built for {binary.platform}, but this machine is {here}. Pack it with --no-load and a "
            "manifest that has module_name, version, commands and min_redis_version."
        )


def _successes(order: Order, tried: tuple[Tried, ...]) -> list[dict[str, Any]]:
    """Return the trials that count on nodes: those with the arguments that nodes use."""
    fields = {**order.manifest, **order.flags}
    args = shlex.split(fields.get("command_line_args") or "")
    scratch_args = fields.get("scratch_args")
    trial_args = args if scratch_args is None else shlex.split(scratch_args)
    system = read_operating_system()
    if trial_args != _arguments(order) or not system:
        return []
    files = [(order.module, order.module.name), *((each, f"deps/{each.name}") for each in order.dependencies)]
    members = [Member(path=path, size=each.stat().st_size, sha256=sha256_of(each)) for each, path in files]
    return [
        {
            "server": each.product,
            "platform": f"{PLATFORM}/{system}",
            "files_sha256": files_digest(members),
            "args": args,
            "scratch_args": trial_args,
            **{name: known for name in ("has_types", "aux_data") if (known := getattr(each.learned, name)) is not None},
            **{name: list(getattr(each.learned, name)) for name in ("commands", "options", "differences")},
        }
        for each in tried
        if each.learned is not None
    ]


def _arguments(order: Order) -> list[str]:
    """Return the arguments for MODULE LOAD."""
    fields = {**order.manifest, **order.flags}
    text = next(filter(None, map(fields.get, (RUN_ARGS, "scratch_args", "command_line_args"))), "")
    try:
        return shlex.split(str(text))
    except ValueError as error:
        raise PackError(f"The arguments {text!r} cannot be split into words: {error}.") from error
