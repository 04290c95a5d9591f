"""Write a package: a zip of one shared object, its module.json, and its dependencies in `deps/`.

The same input makes the same file, byte for byte: paths are sorted, times and owners are left out.
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
    """Write the package to `to`, and return `to`. `metadata` is its module.json, `dependencies` go to `deps/`."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as package:
        _write_file(package, module, module.name, _PROGRAM)
        package.writestr(_info("module.json", _PLAIN), json.dumps(metadata, indent=2, sort_keys=True) + "\n")
        for file in sorted(dependencies, key=lambda each: each.name):
            _write_file(package, file, f"deps/{file.name}", _PLAIN)
    return to


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of the file in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write_file(package: zipfile.ZipFile, file: Path, path: str, mode: int) -> None:
    info = _info(path, mode)
    info.file_size = file.stat().st_size  # an entry of more than 2 GiB needs another format
    with file.open("rb") as content, package.open(info, "w") as member:
        shutil.copyfileobj(content, member)


def _info(path: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix; otherwise the package would depend on the machine that makes it
    info.external_attr = (stat.S_IFREG | mode) << 16
    return info
