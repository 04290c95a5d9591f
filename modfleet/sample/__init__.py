"""The sample module `greet`: compiled with the machine's C compiler and packed as an operator would upload it."""

import hashlib
import json
import platform
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("greet.c")


class SampleError(Exception):
    """The sample cannot be built; the message says why in one sentence."""


def build_sample(out_dir: Path, *, version: int = 10000) -> Path:
    """A package of greet in `out_dir`. `version` is major * 10000 + minor * 100 + patch. Raises: `SampleError`."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir) as folder:
        module = compile_module(SOURCE, Path(folder) / "greet.so", defines={"GREET_VERSION": str(version)})
        package = pack(module, sample_metadata(module, version=version), Path(folder) / "greet.zip")
        return package.replace(sample_path(out_dir, version=version))  # whole, or not there


def sample_path(out_dir: Path, *, version: int = 10000) -> Path:
    """Where `build_sample` puts the package."""
    return out_dir / f"greet-{semantic(version)}.zip"


def require_compiler() -> str:
    """Path of the C compiler. Raises: `SampleError`."""
    compiler = shutil.which("cc")
    if not compiler:
        raise SampleError("No C compiler: install one that is called `cc`, for example by `apt install gcc`.")
    return compiler


def compile_module(source: Path, to: Path, *, defines: Mapping[str, str] | None = None) -> Path:
    """`to`, a shared object made of one C file. Raises: `SampleError`."""
    compiler = require_compiler()
    macros = [f"-D{name}={value}" for name, value in (defines or {}).items()]
    words = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", *macros, "-o", str(to), str(source)]
    built = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if built.returncode:
        raise SampleError(f"{source.name} does not compile: {built.stderr.strip()}")
    return to


def pack(module: Path, metadata: Mapping[str, Any], to: Path) -> Path:
    """`to`, a package with the module and its module.json."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as package:
        package.write(module, module.name)
        package.writestr("module.json", json.dumps(metadata, indent=2))
    return to


def sample_metadata(module: Path, *, version: int) -> dict[str, Any]:
    """The module.json of greet, with the fields that the vendor's packer writes."""
    return {
        "module_name": "greet",
        "version": version,
        "semantic_version": semantic(version),
        "display_name": "Greet",
        "description": "Answers a greeting: the smallest module that can be seen to work",
        "author": "Modfleet",
        "email": "",
        "homepage": "",
        "license": "MIT",
        "command_line_args": "",
        "config_command": "",
        "capabilities": [],
        "capability_name": "Greet",
        "commands": [
            {
                "command_name": "greet.hello",
                "command_arity": -1,
                "first_key": 0,
                "last_key": 0,
                "step": 0,
                "flags": ["readonly", "module", "fast"],
            }
        ],
        "min_redis_version": "7.0",
        "compatible_redis_version": "7.0",
        "min_redis_pack_version": "5.2",
        "architecture": platform.machine(),
        "os": platform.system(),
        "operating_systems": [],
        "dependencies": {},
        "crdb": {},
        "module_file": module.name,
        "ramp_format_version": 1,
        "sha256": hashlib.sha256(module.read_bytes()).hexdigest(),
    }


def semantic(version: int) -> str:
    """`10203` as `1.2.3`."""
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"
