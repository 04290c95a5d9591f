"""The manifest: over what the module says, under what the flags say, and never against the module."""

import pytest

from tests.unit.packing.conftest import module_json_of

AARCH64 = 0xB7
MACHINE_OFFSET = 18


@pytest.fixture
def manifest(tmp_path):
    def written(text):
        (tmp_path / "module.yaml").write_text(text)
        return "module.yaml"

    return written


def test_flags_win_over_the_manifest_and_that_over_what_was_read(run, module, manifest):
    path = manifest("author: Ada\nlicense: MIT\nsemantic_version: 1.0.0-rc1\ncapabilities: [types]\n")
    assert run(module(), "-o", "a.zip", "-m", path, "--author", "Grace").exit_code == 0
    document = module_json_of("a.zip")
    assert (document["author"], document["license"]) == ("Grace", "MIT")
    assert (document["semantic_version"], document["capabilities"]) == ("1.0.0-rc1", ["types"])
    assert (document["display_name"], document["min_redis_version"]) == ("greet", "7.2")


def test_a_version_without_quotes_stays_as_it_is_written(run, module, manifest):
    run(module(), "-o", "a.zip", "-m", manifest("min_redis_version: 7.10\ndescription: 2026-01-02\n"))
    assert module_json_of("a.zip")["min_redis_version"] == "7.10"
    assert module_json_of("a.zip")["description"] == "2026-01-02"


def test_arguments_of_the_manifest_are_used(run, module, manifest):
    path = manifest("command_line_args: name Ada\n")
    assert run(module("needs_arguments"), "-o", "a.zip", "-m", path).exit_code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("module_name: other", "module_name is 'other', but the module reports 'greet'"),
        ("version: 10001", "version is 10001, but the module reports 10000"),
        ("commands: [{command_name: greet.bye}]", "commands has greet.bye, but the module does not add them"),
        ("architecture: s390x", "architecture: is not the shared object's"),
        (f"sha256: {'a' * 64}", "its SHA-256 differs"),
        ("module_file: other.so", "module_file: is not the package's greet.so"),
    ],
)
def test_what_contradicts_the_module_is_refused(refused, module, manifest, text, said):
    assert said in refused(module(), "-o", "a.zip", "-m", manifest(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("licence: MIT", "has unknown fields: licence (did you mean license?)."),
        ("- a\n- b", "must have one field and its value on each line"),
        ("a: [", "is not valid YAML"),
        ("capabilities: types\nauthor: [Ada]", "capabilities: must be a list of texts; author: must be a text"),
    ],
)
def test_a_bad_manifest_is_refused_in_words(refused, module, manifest, text, said):
    # What is wrong is named in the order of the defaults.
    answer = refused(module(), "-o", "a.zip", "-m", manifest(text))
    assert all(part in answer for part in said.split("; "))


def test_an_empty_manifest_says_nothing(run, module, manifest):
    assert run(module(), "-o", "a.zip", "-m", manifest("")).exit_code == 0


def test_a_module_json_is_a_manifest(run, module, manifest, tmp_path):
    run(module(), "-o", "a.zip", "--author", "Ada")
    (tmp_path / "module.json").write_text(str(module_json_of("a.zip")).replace("'", '"').replace("False", "false"))
    run("greet.so", "-o", "b.zip", "-m", "module.json")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


# --- Without loading --------------------------------------------------------------------------------------------------

SAYS_IT = (
    "module_name: greet\nversion: 10203\nmin_redis_version: 7.0\n"
    "commands:\n  - {command_name: greet.hello, flags: [readonly]}\n"
)


@pytest.fixture
def other_machine(module):
    path = module()
    code = bytearray(path.read_bytes())
    code[MACHINE_OFFSET] = AARCH64 if code[MACHINE_OFFSET] != AARCH64 else 0x3E
    path.write_bytes(code)
    return path


def test_a_module_of_another_machine_is_not_loaded(refused, other_machine):
    assert "Pack it with --no-load and a manifest" in refused(other_machine, "-o", "a.zip")


def test_a_module_of_another_machine_is_packed_as_the_manifest_says(run, other_machine, manifest):
    answer = run(other_machine, "-o", "a.zip", "--no-load", "-m", manifest(SAYS_IT))
    document = module_json_of("a.zip")
    assert (answer.exit_code, document["version"], document["semantic_version"]) == (0, 10203, "1.2.3")
    assert document["compatible_redis_version"] == "7.0"
    assert f"linux/{document['architecture']}" in answer.stdout


def test_without_loading_what_is_missing_is_named(refused, module):
    said = refused(module(), "-o", "a.zip", "--no-load")
    assert all(f"{field}: is missing" in said for field in ("module_name", "version", "min_redis_version", "commands"))
    assert said.endswith("the manifest must have these fields.")


def test_without_loading_no_server_is_needed(run, module, manifest):
    words = ("--no-load", "--server", "no-such-server", "-m", manifest(SAYS_IT))
    assert run(module("crashes"), "-o", "a.zip", *words).exit_code == 0
