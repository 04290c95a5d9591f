"""Compile and pack the sample module `greet`, with the machine's C compiler."""

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modfleet.packing.loading import Loaded
from modfleet.packing.manifest import Binary, module_json, semantic
from modfleet.packing.write import pack

SOURCE = Path(__file__).with_name("greet.c")
MANIFEST = {
    "display_name": "Greet",
    "description": "Answers a greeting: the smallest module that can be seen to work",
    "author": "Modfleet",
    "license": "MIT",
    "capability_name": "Greet",
}
HELLO = {
    "command_name": "greet.hello",
    "command_arity": -1,
    "first_key": 0,
    "last_key": 0,
    "step": 0,
    "flags": ["readonly", "module", "fast"],
}


class SampleError(Exception):
    """The sample cannot be built or rolled out. The message says why in one sentence."""


def build_sample(out_dir: Path, *, version: int = 10000) -> Path:
    """Build a package of greet in `out_dir`. `version`: major * 10000 + minor * 100 + patch. Raises: `SampleError`."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir) as directory:
        module = compile_module(SOURCE, Path(directory) / "greet.so", defines={"GREET_VERSION": str(version)})
        package = pack(module, sample_metadata(module, version=version), Path(directory) / "greet.zip")
        return package.replace(sample_path(out_dir, version=version))  # complete, or absent


def sample_path(out_dir: Path, *, version: int = 10000) -> Path:
    """Return the path at which `build_sample` puts the package."""
    return out_dir / f"greet-{semantic(version)}.zip"


def require_compiler() -> str:
    """Return the path of the C compiler. Raises: `SampleError`."""
    compiler = shutil.which("cc")
    if not compiler:
        raise SampleError("No C compiler. Install one that is called `cc`, for example with `apt install gcc`.")
    return compiler


def compile_module(source: Path, to: Path, *, defines: Mapping[str, str] | None = None) -> Path:
    """Compile one C file to the shared object `to`. Raises: `SampleError`."""
    compiler = require_compiler()
    macros = [f"-D{name}={value}" for name, value in (defines or {}).items()]
    words = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", *macros, "-o", str(to), str(source)]
    built = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if built.returncode:
        raise SampleError(f"{source.name} does not compile: {built.stderr.strip()}")
    return to


def sample_metadata(module: Path, *, version: int) -> dict[str, Any]:
    """Return the module.json of greet, without loading it: its commands are known."""
    binary = Binary(path=module, platform=f"{platform.system().lower()}/{platform.machine()}")
    loaded = Loaded(module_name="greet", version=version, commands=(HELLO,), redis_version="7.0")
    return module_json(binary, loaded=loaded, manifest=MANIFEST, flags={}, dependencies=())
