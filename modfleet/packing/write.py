"""Writes a package: a zip of one shared object, its module.json, and the files that it needs in `deps/`.

The same input is the same file, byte for byte: paths are sorted, times and owners are left out.
"""

import hashlib
import json
import shutil
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PROGRAM, _PLAIN = 0o755, 0o644


def pack(module: Path, metadata: Mapping[str, Any], to: Path, *, dependencies: Sequence[Path] = ()) -> Path:
    """`to`, a package of the module, with `metadata` as its module.json and `dependencies` below `deps/`."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as package:
        _write_file(package, module, module.name, _PROGRAM)
        package.writestr(_info("module.json", _PLAIN), json.dumps(metadata, indent=2, sort_keys=True) + "\n")
        for file in sorted(dependencies, key=lambda each: each.name):
            _write_file(package, file, f"deps/{file.name}", _PLAIN)
    return to


def sha256_of(file: Path) -> str:
    """In hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write_file(package: zipfile.ZipFile, file: Path, path: str, mode: int) -> None:
    info = _info(path, mode)
    info.file_size = file.stat().st_size  # decides whether the entry is one for more than 2 GiB
    with file.open("rb") as content, package.open(info, "w") as member:
        shutil.copyfileobj(content, member)


def _info(path: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix: else what makes the package would stand in it
    info.external_attr = (stat.S_IFREG | mode) << 16
    return info
