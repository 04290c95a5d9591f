"""From a shared object to a package: look at it, load it, describe it, write it, check it."""

import filecmp
import platform
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts_app.exceptions import InvalidArtifact
from artifacts_app.shared_object import read_platform
from modfleet.packing import PackError
from modfleet.packing.check import Report, check_package
from modfleet.packing.loading import load_module
from modfleet.packing.manifest import RUN_ARGS, Binary, module_json
from modfleet.packing.write import pack
from modules_app.metadata import is_file_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be packed. `to` None: a name made of module, version, operating systems and machine, here."""

    module: Path
    to: Path | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    #: Files for the package's `deps/`.
    dependencies: tuple[Path, ...] = ()
    load: bool = True
    server: str = ""
    #: Whether another file that lies there may be replaced.
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """`has_changed` is False where the very same package lay there already."""

    path: Path
    report: Report
    has_changed: bool


def make_package(order: Order) -> Packed:
    """The package, whole and checked, or none at all. Raises: `PackError`."""
    try:
        binary = _look_at(order.module)
        _refuse_dependencies(order)
        if order.to is not None:
            _refuse_target(order.to, order)
        return _make(order, binary)
    except OSError as error:
        raise PackError(f"{error.filename or order.module}: {error.strerror or error}.") from error


def _make(order: Order, binary: Binary) -> Packed:
    loaded = None
    if order.load:
        _refuse_other_machine(binary)
        args = _arguments(order)
        loaded = load_module(binary.path, args=args, dependencies=order.dependencies, server=order.server)
    document = module_json(
        binary, loaded=loaded, manifest=order.manifest, flags=order.flags, dependencies=order.dependencies
    )
    machine = document["architecture"]
    named = "-".join([document["module_name"], document["semantic_version"], *document["operating_systems"], machine])
    to = order.to or Path(f"{named}.zip")
    with tempfile.TemporaryDirectory(prefix=".modfleet-", dir=to.parent) as folder:
        package = pack(binary.path, document, Path(folder) / to.name, dependencies=order.dependencies)
        report = check_package(package)
        if report.problems:
            said = "; ".join(each["description"] for each in report.problems)
            raise PackError(f"No control plane would take the package: {said}.")
        has_changed = not (to.exists() and filecmp.cmp(package, to, shallow=False))
        if has_changed:
            _refuse_target(to, order, has_changed=True)
            package.replace(to)
    return Packed(path=to, report=check_package(to), has_changed=has_changed)


def _look_at(module: Path) -> Binary:
    """The file is a whole shared object: a server that maps a truncated one is killed."""
    with module.open("rb") as file:
        try:
            return Binary(path=module, platform=read_platform(file))
        except InvalidArtifact as error:
            raise PackError(f"{module} is no module: {error}.") from error


def _refuse_dependencies(order: Order) -> None:
    names = [file.name for file in order.dependencies]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PackError(f"Two files for deps/ have the same name: {', '.join(twice)}.")
    if odd := [name for name in names if not is_file_name(name)]:
        raise PackError(f"A file for deps/ has a name that no package may have: {', '.join(map(repr, odd))}.")


def _refuse_target(to: Path, order: Order, *, has_changed: bool = False) -> None:
    if not to.parent.is_dir():
        raise PackError(f"There is no folder {to.parent}: make it, or choose another -o.")
    if to.is_dir():
        raise PackError(f"{to} is a folder: name a file with -o, such as {to / order.module.stem}.zip.")
    if to.exists() and any(to.samefile(each) for each in (order.module, *order.dependencies)):
        raise PackError(f"{to} is what the package is made of: choose another -o.")
    if has_changed and to.exists() and not order.force:
        raise PackError(f"{to} is there already, and is another package: --force replaces it.")


def _refuse_other_machine(binary: Binary) -> None:
    here = f"{platform.system().lower()}/{platform.machine()}"
    if binary.platform != here:
        raise PackError(
            f"{binary.path.name} is built for {binary.platform}, and this machine is {here}: pack it with --no-load, "
            "and a manifest that has its module_name, version and commands."
        )


def _arguments(order: Order) -> list[str]:
    """Words for MODULE LOAD."""
    said = {**order.manifest, **order.flags}
    text = said.get(RUN_ARGS) or said.get("command_line_args") or ""
    try:
        return shlex.split(str(text))
    except ValueError as error:
        raise PackError(f"The arguments {text!r} cannot be split into words: {error}.") from error
