"""Packages as operators upload them, and a storage of the test's own to take them in."""

import io
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

SOURCE = "int RedisModule_OnLoad(void *context, void **arguments, int count) { return context == arguments && count; }"
#: Where an ELF header names its machine, and the two that packages are made for.
MACHINE_OFFSET = 18
X86_64, AARCH64 = 0x3E, 0xB7
ARTIFACTS = "/v2/modules/user-defined/artifacts"
LOCAL = "/v2/local/modules/user-defined/artifacts"


def module_object(**changes: Any) -> dict[str, Any]:
    """The body of POST /v2/modules/user-defined as the vendor's page has it."""
    return {
        "module_name": "TestModule",
        "version": 1,
        "semantic_version": "0.0.1",
        "display_name": "test module",
        "commands": [
            {
                "command_arity": -1,
                "command_name": "json.arrtrim",
                "first_key": 1,
                "flags": ["write"],
                "last_key": 1,
                "step": 1,
            }
        ],
        "command_line_args": "",
        "capabilities": ["list", "of", "capabilities"],
        "min_redis_version": "2.1",
        **changes,
    }


@pytest.fixture(scope="session")
def shared_object(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("module")
    (folder / "test.c").write_text(SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "test.so", "test.c"], cwd=folder, check=True)
    return (folder / "test.so").read_bytes()


@pytest.fixture(scope="session")
def pack(shared_object: bytes) -> Callable[..., bytes]:
    """Bytes of a package: `members` are added to it, all else changes its module.json."""

    def packed(*, machine: int = X86_64, members: dict[str, bytes] | None = None, **changes: Any) -> bytes:
        out = io.BytesIO()
        code = bytearray(shared_object)
        code[MACHINE_OFFSET] = machine
        with zipfile.ZipFile(out, "w") as archive:
            document = json.dumps(module_object(**changes)).encode()
            for path, content in {"test.so": bytes(code), "module.json": document, **(members or {})}.items():
                archive.writestr(zipfile.ZipInfo(path), content)  # without the time, so that packing is repeatable
        return out.getvalue()

    return packed


def as_upload(package: bytes, *, field: str = "module", name: str = "module.zip") -> dict[str, io.BytesIO]:
    """What a test client sends as multipart/form-data."""
    file = io.BytesIO(package)
    file.name = name
    return {field: file}


@pytest.fixture
def storage(settings: Settings, tmp_path: Path) -> Path:
    """The folder in which this test's packages are kept."""
    folder = tmp_path / "artifacts"
    backend = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(folder)}}
    settings.STORAGES = {**settings.STORAGES, "default": backend}
    return folder


def files_in(folder: Path) -> list[str]:
    """Everything that is stored or on its way in."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
