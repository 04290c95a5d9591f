"""The modules of a proof, all from tests/modules/entries.c, and their packages."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from modfleet.packing.loading import Loaded
from modfleet.packing.manifest import Binary, module_json
from modfleet.packing.write import pack
from modfleet.proof.history import Way
from modfleet.sample import compile_module
from tests.fleet import Fleet, remove_folder, short_folder
from tests.shards import SOURCES, upload

#: The version from which `keeps` writes another encoding, which older versions cannot read.
NEW_ENCODING = 2000


@dataclass(frozen=True, kw_only=True)
class Module:
    """A module of a proof, and how a server gets another version of it."""

    name: str
    way: Way = Way.LOAD
    defines: Mapping[str, str] = field(default_factory=dict)
    needs: Sequence[str] = ()
    #: False if clients only ask for its version.
    has_entries: bool = True
    #: Bytes that make its file larger.
    padding: int = 0


MODULES = {
    each.name: each
    for each in (
        Module(name="plain", has_entries=False),
        Module(name="writes"),
        Module(name="keeps", way=Way.RESTART, defines={"TYPE": '"entries-1"'}),
        Module(name="large", padding=31_000_000),
        Module(name="base"),
        Module(name="needs", defines={"NEEDS": '"base.ask"'}, needs=["base"], has_entries=False),
    )
}


def arguments(version: int) -> str:
    return f"limit={version}"


def configuration(version: int) -> str:
    """Return what the module answers as its configuration; empty for no version."""
    return f"{version} {arguments(version)}" if version else ""


def compiled(folder: Path, module: Module, version: int) -> Path:
    encoding = {"ENCODING": "2"} if version >= NEW_ENCODING else {}
    defines = {"NAME": f'"{module.name}"', "VERSION": str(version), **module.defines, **encoding}
    if module.padding:
        padding = folder / "padding"  # as code is: it cannot be compressed much
        padding.write_bytes(Random(0).randbytes(module.padding))
        defines["PADDING"] = f'"{padding}"'
    return compile_module(SOURCES / "entries.c", folder / f"{module.name}.so", defines=defines)


def package(folder: Path, module: Module, version: int) -> Path:
    shown = tuple(_command(f"{module.name}.{each}", flags) for each, flags in _COMMANDS.items())
    loaded = Loaded(module_name=module.name, version=version, commands=shown, redis_version="7.0")
    manifest = {"command_line_args": arguments(version), "dependencies": {each: {} for each in module.needs}}
    binary = Binary(path=compiled(folder, module, version), platform="linux/x86_64")
    document = module_json(binary, loaded=loaded, manifest=manifest, flags={}, dependencies=())
    return pack(binary.path, document, folder / f"{module.name}-{version}.zip")


_COMMANDS = {
    "more": ("readonly", "fast"),
    "ask": ("readonly", "fast"),
    "add": ("write",),
    "get": ("readonly",),
}


def _command(name: str, flags: Sequence[str]) -> dict[str, object]:
    has_key = int(name.endswith((".add", ".get")))
    keys = {"first_key": has_key, "last_key": has_key, "step": has_key}
    return {"command_name": name, "command_arity": -1, **keys, "flags": [*flags, "module"]}


class Packages:
    """Uploads each version once it is needed."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet, self._folder = fleet, folder
        self._uploaded: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def provide(self, name: str, version: int) -> None:
        with self._lock:
            if (name, version) in self._uploaded:
                return
            upload(self.fleet, package(self._folder, MODULES[name], version))
            self._uploaded.add((name, version))


@contextmanager
def packages_of(fleet: Fleet) -> Iterator[Packages]:
    folder = short_folder()
    try:
        yield Packages(fleet, folder)
    finally:
        remove_folder(folder)
