"""`modfleet pack --check FILE.zip`: every problem, in the words of the API."""

import json
import zipfile

import pytest

from artifacts_app import services
from config.environment import Environment
from modfleet.packing import check


@pytest.fixture
def package(compiled, tmp_path):
    """Path of a zip with the sample in it; `members` are added, None takes one away, all else changes module.json."""
    document = {
        "module_name": "greet",
        "version": 10000,
        "semantic_version": "1.0.0",
        "min_redis_version": "7.0",
        "commands": [{"command_name": "greet.hello"}],
        "capabilities": [],
        "display_name": "Greet",
        "command_line_args": "",
        "architecture": "",
        "module_file": "greet.so",
        "sha256": None,
    }

    def made(members=None, **changes):
        files = {"greet.so": compiled("greet").read_bytes(), "module.json": json.dumps(document | changes)}
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for path, content in (files | (members or {})).items():
                if content is not None:
                    archive.writestr(path, content)
        return tmp_path / "a.zip"

    return made


@pytest.fixture
def problems(run):
    """The descriptions of what is wrong, by code."""

    def found(path):
        answer = run("--check", path, "--json")
        document = json.loads(answer.stdout)
        assert (answer.exit_code, document["fine"]) == (1, False)
        return [(each["error_code"], each["description"]) for each in document["problems"]]

    return found


def test_a_package_that_is_fine(run, module):
    run(module(), "-o", "a.zip")
    answer = run("--check", "a.zip")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.stdout.startswith("a.zip has no problems\n  module    greet 10000 (1.0.0)\n")
    assert "note" not in answer.stdout


def test_json_is_that_of_packing(run, module):
    packed = json.loads(run(module(), "-o", "a.zip", "--json").stdout)
    assert packed.pop("changed")
    assert [each["loaded"] for each in packed.pop("servers")] == [True]
    assert json.loads(run("--check", "a.zip", "--json").stdout) == packed


def test_every_problem_is_named(problems, package):
    assert problems(package({"evil.sh": "x", "two.so": "x"}, version=1.5, capabilities="types")) == [
        ("invalid_artifact", "'evil.sh' does not belong in a package: one .so file, module.json and deps/* do"),
        ("invalid_artifact", "the package must have one .so file next to module.json, not 2"),
        ("invalid_module", "version: must be a whole number"),
        ("invalid_module", "capabilities: must be a list of texts"),
    ]


@pytest.mark.parametrize(
    ("members", "changes", "code", "said"),
    [
        ({"greet.so": None}, {}, "invalid_artifact", "not 0"),
        ({"module.json": None}, {}, "invalid_artifact", "the package has no module.json"),
        ({"module.json": "{"}, {}, "invalid_module", "module.json: "),
        ({"module.json": " " * 1_100_000}, {}, "invalid_module", "module.json: is larger than 1048576 bytes"),
        ({"greet.so": "x" * 100}, {}, "invalid_artifact", "the .so file is not an ELF shared object"),
        ({}, {"sha256": "0" * 64}, "invalid_artifact", "its SHA-256 differs"),
        ({}, {"architecture": "s390x"}, "invalid_module", "architecture: is not the shared object's"),
        ({}, {"module_name": None}, "invalid_module", "module_name: is missing"),
    ],
)
def test_each_problem(problems, package, members, changes, code, said):
    (problem,) = problems(package(members, **changes))
    assert problem[0] == code
    assert said in problem[1]


def test_problems_are_told_to_people_too(run, package):
    answer = run("--check", package(version="x"))
    assert answer.exit_code == 1
    assert answer.stdout == f"{package()} has problems:\n  invalid_module: version: must be a whole number\n"


def test_a_file_that_is_no_zip(problems, tmp_path):
    (tmp_path / "a.zip").write_text("x")
    assert problems("a.zip") == [("invalid_artifact", "the file is not a zip archive, or its end is missing")]


@pytest.mark.parametrize("name", ["away.zip", "."])
def test_a_file_that_cannot_be_read(refused, name):
    assert "cannot be read" in refused("--check", name)


def test_what_others_would_not_take_is_a_note(run, package):
    answer = run("--check", package(display_name=None, version=0))
    assert answer.exit_code == 0
    assert "POST /v2/modules/user-defined requires display_name" in answer.stdout
    assert "the vendor's tools refuse version 0" in answer.stdout
    assert "the vendor's tools require architecture, sha256, compatible_redis_version" in answer.stdout


def test_limits_are_those_of_a_control_plane():
    assert Environment().max_upload_bytes == check.MAX_UPLOAD_BYTES
    assert Environment().max_unpacked_bytes == check.MAX_UNPACKED_BYTES
    assert check.MAX_MEMBERS == services.MAX_MEMBERS
