"""Real shared objects, compiled once, and zips around them."""

import hashlib
import io
import json
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from artifacts_app.package import InspectedPackage, inspect_package


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Bytes of what the compiler makes of `source`."""

    def compiled(source: str, *options: str) -> bytes:
        folder = tmp_path_factory.mktemp("module")
        (folder / "module.c").write_text(source)
        subprocess.run(
            ["cc", *(options or ("-shared", "-fPIC")), "-o", "module.so", "module.c"], cwd=folder, check=True
        )
        return (folder / "module.so").read_bytes()

    return compiled


@pytest.fixture(scope="session")
def machine(shared_object: bytes) -> str:
    """The machine that these tests run on, as a platform names it."""
    return {0x3E: "x86_64", 0xB7: "aarch64"}[shared_object[18]]


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    return {
        "module_name": "test",
        "version": 10203.0,
        "semantic_version": "1.2.3",
        "min_redis_version": "7.2",
        "commands": [{"command_name": "test.get", "command_arity": 2, "flags": ["readonly"]}],
        "capabilities": ["types"],
    }


@pytest.fixture(scope="session")
def files(shared_object: bytes, document: dict[str, Any]) -> dict[str, bytes]:
    """The members of a good package."""
    return {"test.so": shared_object, "module.json": json.dumps(document).encode()}


@pytest.fixture(scope="session")
def zipped() -> Callable[..., bytes]:
    """Bytes of a zip with `members`: content by path or by ZipInfo."""

    def built(members: Mapping[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for path, content in members.items():
                archive.writestr(path, content)
        return out.getvalue()

    return built


@pytest.fixture(scope="session")
def inspect() -> Callable[..., InspectedPackage]:
    """`inspect_package` of bytes, with room for what tests make."""

    def inspected(
        data: bytes, *, max_unpacked_bytes: int = 64 * 1024 * 1024, max_members: int = 100
    ) -> InspectedPackage:
        return inspect_package(io.BytesIO(data), max_unpacked_bytes=max_unpacked_bytes, max_members=max_members)

    return inspected


@pytest.fixture(scope="session")
def sha256() -> Callable[[bytes], str]:
    return lambda data: hashlib.sha256(data).hexdigest()
