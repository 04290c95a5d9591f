"""`differing_fields`: when a module object and an artifact's `module.json` contradict each other."""

import pytest

from modules_app.metadata import differing_fields, parse_metadata

OBJECT = {
    "module_name": "TestModule",
    "version": 1,
    "semantic_version": "0.0.1",
    "display_name": "test module",
    "commands": [{"command_name": "t.get", "flags": ["readonly", "fast"], "step": 1}, {"command_name": "t.set"}],
    "command_line_args": "",
    "capabilities": ["types", "clustering"],
    "min_redis_version": "7.2",
}


def differing(one, other):
    a = parse_metadata({**OBJECT, **one}).document
    b = parse_metadata({**OBJECT, **other}).document
    assert differing_fields(a, b) == differing_fields(b, a)
    return differing_fields(a, b)


def test_it_works():
    assert differing({}, {}) == ()
    assert differing({}, {"version": 2, "min_redis_version": "7.4"}) == ("min_redis_version", "version")


def test_a_field_that_only_one_has_contradicts_nothing():
    assert differing({"author": "alice"}, {"homepage": "https://example.com"}) == ()


def test_an_empty_text_contradicts_nothing():
    assert differing({"author": "", "command_line_args": "a 1"}, {"author": "alice"}) == ()


@pytest.mark.parametrize(
    "build",
    [
        {"architecture": "aarch64"},
        {"os": "Other"},
        {"operating_systems": ["rhel9"]},
        {"os_list": ["ubuntu18.04"]},
        {"sha256": "cd" * 32},
        {"module_file": "other.so"},
        {"uid": "2"},
        {"git_sha": "2"},
        {"ramp_format_version": 2},
    ],
)
def test_what_belongs_to_one_build_may_differ(build):
    first = {
        "architecture": "x86_64",
        "os": "Linux",
        "operating_systems": ["debian12"],
        "os_list": [],
        "sha256": "ab" * 32,
        "module_file": "test.so",
        "uid": "1",
        "git_sha": "1",
        "ramp_format_version": 1,
    }

    assert differing(first, {**first, **build}) == ()


def test_order_contradicts_nothing():
    turned = {
        "commands": [{"command_name": "T.SET"}, {"command_name": "t.get", "flags": ["fast", "readonly"], "step": 1}],
        "capabilities": ["clustering", "types"],
    }

    assert differing({}, turned) == ()


@pytest.mark.parametrize(
    "commands",
    [
        [{"command_name": "t.get"}],
        [{"command_name": "t.get", "flags": ["write"]}, {"command_name": "t.set"}],
        [{"command_name": "t.get", "step": 2}, {"command_name": "t.set"}],
    ],
)
def test_other_commands_contradict(commands):
    assert differing({}, {"commands": commands}) == ("commands",)


def test_a_command_may_be_described_more_fully():
    assert differing({}, {"commands": [{"command_name": "t.get", "first_key": 1}, {"command_name": "t.set"}]}) == ()


def test_other_dependencies_contradict_by_name():
    packed = {"dependencies": {"jdk": {"sha256": "ab" * 32}}}

    assert (
        differing(packed, {"dependencies": [{"name": "jdk", "url": "https://example.com", "sha256": "cd" * 32}]}) == ()
    )
    assert differing(packed, {"dependencies": {"jdk": {}, "python": {}}}) == ("dependencies",)
