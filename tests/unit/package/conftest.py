"""Real shared objects, compiled once, and zips around them."""

import hashlib
import io
import json
import subprocess
import zipfile

import pytest

from artifacts_app.package import inspect_package

SOURCE = """
int RedisModule_OnLoad(void *context, void **arguments, int count) { return context == arguments && count; }
"""


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory):
    """Bytes of what the compiler makes of `source`."""

    def compiled(source, *options):
        folder = tmp_path_factory.mktemp("module")
        (folder / "module.c").write_text(source)
        subprocess.run(
            ["cc", *(options or ("-shared", "-fPIC")), "-o", "module.so", "module.c"], cwd=folder, check=True
        )
        return (folder / "module.so").read_bytes()

    return compiled


@pytest.fixture(scope="session")
def shared_object(compile_c):
    return compile_c(SOURCE)


@pytest.fixture(scope="session")
def machine(shared_object):
    """The machine that these tests run on, as a platform names it."""
    return {0x3E: "x86_64", 0xB7: "aarch64"}[shared_object[18]]


@pytest.fixture(scope="session")
def document():
    return {
        "module_name": "test",
        "version": 10203.0,
        "semantic_version": "1.2.3",
        "min_redis_version": "7.2",
        "commands": [{"command_name": "test.get", "command_arity": 2, "flags": ["readonly"]}],
        "capabilities": ["types"],
    }


@pytest.fixture(scope="session")
def files(shared_object, document):
    """The members of a good package."""
    return {"test.so": shared_object, "module.json": json.dumps(document).encode()}


@pytest.fixture(scope="session")
def zipped():
    """Bytes of a zip with `members`: content by path or by ZipInfo."""

    def built(members, method=zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for path, content in members.items():
                archive.writestr(path, content)
        return out.getvalue()

    return built


@pytest.fixture(scope="session")
def inspect():
    """`inspect_package` of bytes, with room for what tests make."""

    def inspected(data, *, max_unpacked_bytes=64 * 1024 * 1024, max_members=100):
        return inspect_package(io.BytesIO(data), max_unpacked_bytes=max_unpacked_bytes, max_members=max_members)

    return inspected


@pytest.fixture(scope="session")
def sha256():
    return lambda data: hashlib.sha256(data).hexdigest()
