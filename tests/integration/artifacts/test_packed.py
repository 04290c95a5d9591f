"""What `modfleet pack` makes goes through every door."""

import json
import zipfile
from pathlib import Path

import pytest

from modfleet.packing.build import Order, make_package
from modfleet.sample import SOURCE, compile_module
from tests.plugins.packages import ARTIFACTS, as_upload

MODULES = "/v2/modules/user-defined"
NEEDS_ARGUMENTS = Path(__file__).parents[2] / "modules" / "needs_arguments.c"


@pytest.fixture(scope="module", params=["greet", "needs_arguments"])
def packed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    source, flags = (SOURCE, {}) if request.param == "greet" else (NEEDS_ARGUMENTS, {"command_line_args": "name Ada"})
    module = compile_module(source, folder / f"{request.param}.so")
    return make_package(Order(module=module, to=folder / "a.zip", flags=flags | {"author": "Ada"}))


def test_package_and_module_object_agree(admin, packed):
    uploaded = admin.post(ARTIFACTS, as_upload(packed.path.read_bytes()))
    with zipfile.ZipFile(packed.path) as archive:
        registered = admin.post(MODULES, json.loads(archive.read("module.json")), format="json")
    assert (uploaded.status_code, registered.status_code) == (201, 200)
    build = uploaded.json()["builds"][0]
    summary = packed.report.summary
    assert summary["platforms"] == [build["platform"]]
    assert {name: summary[name] for name in build if name in summary} == {
        name: build[name] for name in ("content_sha256", "package_sha256", "size")
    }


def test_the_vendors_route_takes_it(admin, packed):
    response = admin.post("/v2/modules", as_upload(packed.path.read_bytes()))
    assert response.status_code == 200
    assert (response.json()["module_name"], response.json()["author"]) == (packed.report.summary["module_name"], "Ada")
