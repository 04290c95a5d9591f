"""`modules_app.metadata`: which module objects are accepted, and what is said of the others."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules_app.metadata import MODULE_OBJECT_FIELDS, PACKAGE_FIELDS, InvalidMetadata, parse_metadata
from tests.plugins.packages import module_object

OBJECT = module_object()
#: The fields that RAMP 2.5.19 writes beside those.
RAMP: dict[str, Any] = {
    "add_command": [],
    "architecture": "x86_64",
    "author": "A",
    "bigstore_version_2_support": False,
    "capability_name": "Search",
    "compatible_redis_version": "7.4",
    "config_command": "",
    "crdb": {},
    "dependencies": {},
    "description": "d",
    "email": "a@example.com",
    "exclude_commands": [],
    "homepage": "http://example.com",
    "license": "MIT",
    "min_redis_pack_version": "7.4",
    "module_file": "redisearch.so",
    "operating_systems": ["debian12"],
    "optional-dependencies": {},
    "os": "Linux",
    "overide_command": [],
    "ramp_format_version": 1,
    "sha256": "28743A8FE98F152D585F60E0A3AA5AFE0689AB6F98735D50875EDEAF00834BBB",
    "speedb_git_sha": "",
    "version": 10200.0,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def wrong_fields(**changes):
    with pytest.raises(InvalidMetadata) as caught:
        parse_metadata({**OBJECT, **changes})
    return caught.value.fields


def test_it_works():
    metadata = parse_metadata(OBJECT)

    assert metadata.module_name == "TestModule"
    assert metadata.version == 1
    assert metadata.commands == ("json.arrtrim",)
    assert metadata.capabilities == ("list", "of", "capabilities")
    assert metadata.document == OBJECT


def test_what_ramp_writes_is_accepted_and_kept():
    metadata = parse_metadata({**OBJECT, **RAMP}, required=PACKAGE_FIELDS)

    assert metadata.version == metadata.document["version"] == 10200
    assert isinstance(metadata.document["version"], int)
    assert metadata.sha256 == RAMP["sha256"].lower()
    assert metadata.document.keys() == OBJECT.keys() | RAMP.keys()
    assert metadata.document["optional-dependencies"] == {}


def test_what_was_accepted_is_accepted_again_unchanged():
    document = parse_metadata({**OBJECT, **RAMP, "dependencies": ["dep_1"]}).document

    assert parse_metadata(document).document == document


@pytest.mark.parametrize("field", MODULE_OBJECT_FIELDS)
@pytest.mark.parametrize("absent", ["left out", "null"])
def test_a_required_field_is_missed(field, absent):
    body = {name: value for name, value in OBJECT.items() if name != field}
    if absent == "null":
        body[field] = None

    with pytest.raises(InvalidMetadata) as caught:
        parse_metadata(body)

    assert caught.value.fields == {field: "is missing"}


@pytest.mark.parametrize("field", ["display_name", "command_line_args"])
def test_a_package_may_leave_out(field):
    body = {name: value for name, value in OBJECT.items() if name != field}

    assert getattr(parse_metadata(body, required=PACKAGE_FIELDS), field) == ""


@pytest.mark.parametrize("value", [None, [], "text", 1, True, [OBJECT]])
def test_only_an_object_is_a_module(value):
    with pytest.raises(InvalidMetadata, match="must be a JSON object"):
        parse_metadata(value)


def test_all_wrong_fields_are_named_at_once():
    body = {**OBJECT, "version": "1", "capabilities": "none", "commands": [{}, {"command_name": "a", "step": "1"}]}
    del body["min_redis_version"]

    with pytest.raises(InvalidMetadata) as caught:
        parse_metadata(body)

    assert caught.value.fields.keys() == {
        "min_redis_version",
        "version",
        "capabilities",
        "commands[0].command_name",
        "commands[1].step",
    }
    assert "version: must be a whole number" in str(caught.value)


def test_many_wrong_fields_are_counted():
    with pytest.raises(InvalidMetadata, match="and 980 more") as caught:
        parse_metadata({**OBJECT, "commands": [{}] * 1000})

    assert len(caught.value.fields) == 1000


@pytest.mark.parametrize(
    ("given_version", "read"), [(0, 0), (1, 1), (10203.0, 10203), (-0.0, 0), (2**31 - 1, 2**31 - 1)]
)
def test_a_whole_version_is_an_int(given_version, read):
    version = parse_metadata({**OBJECT, "version": given_version}).version

    assert version == read
    assert type(version) is int


@pytest.mark.parametrize("version", [True, 1.5, -1, -1.0, "1", 2**31, 1e300, [1], float("inf"), float("nan")])
def test_any_other_version_is_refused(version):
    assert wrong_fields(version=version).keys() == {"version"}


@pytest.mark.parametrize("name", ["a", "ReJSON", "my-module_2.x", "...", "x" * 128])
def test_a_module_name_is_accepted(name):
    assert parse_metadata({**OBJECT, "module_name": name}).module_name == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a\n", "a:b", "ä", "x" * 129, 7])
def test_a_module_name_is_refused(name):
    assert wrong_fields(module_name=name).keys() == {"module_name"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("semantic_version", " "),
        ("semantic_version", 1.0),
        ("min_redis_version", "seven"),
        ("min_redis_version", 7.2),
        ("compatible_redis_version", ">=7"),
        ("command_line_args", "a\nrename-command b"),
        ("command_line_args", ["a"]),
        ("command_line_args", "a 'open"),
        ("capabilities", ["a", 1]),
        ("commands", {}),
        ("author", 1),
        ("email", ["a"]),
        ("bigstore_version_2_support", 0),
        ("crdb", []),
        ("dependencies", "dep_1"),
        ("dependencies", [{"url": "a"}]),
        ("dependencies", ["a", "a"]),
        ("dependencies", {"../a": {}}),
        ("operating_systems", "debian12"),
        ("os_list", [{}]),
        ("architecture", 64),
        ("sha256", "abc"),
        ("module_file", "../a.so"),
        ("module_file", "a/b.so"),
        ("module_file", ""),
    ],
)
def test_a_known_field_of_another_type_is_refused(field, value):
    assert wrong_fields(**{field: value}).keys() == {field}


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("get", "commands[0]"),
        ({"command_name": ""}, "commands[0].command_name"),
        ({"command_name": "a", "flags": "write"}, "commands[0].flags"),
        ({"command_name": "a", "first_key": 1.5}, "commands[0].first_key"),
        ({"command_name": "a", "command_arity": True}, "commands[0].command_arity"),
    ],
)
def test_a_wrong_command_is_named_by_its_place(command, place):
    assert wrong_fields(commands=[command]).keys() == {place}


def test_null_in_an_optional_field_counts_as_absent():
    metadata = parse_metadata({**OBJECT, "author": None, "sha256": None, "x": None})

    assert metadata.document.keys() == OBJECT.keys() | {"x"}
    assert metadata.sha256 == ""


@pytest.mark.parametrize(
    "dependencies",
    [
        {"jdk": {"url": "https://example.com/jdk.tgz", "sha256": "AB" * 32}},
        [{"name": "jdk", "url": "https://example.com/jdk.tgz", "sha256": "ab" * 32}],
    ],
)
def test_dependencies_become_an_object(dependencies):
    metadata = parse_metadata({**OBJECT, "dependencies": dependencies})

    assert metadata.dependencies == ("jdk",)
    assert metadata.document["dependencies"] == {"jdk": {"url": "https://example.com/jdk.tgz", "sha256": "ab" * 32}}


def test_dependencies_may_be_bare_names():
    metadata = parse_metadata({**OBJECT, "dependencies": ["dep_1", "dep_2"]})

    assert metadata.dependencies == ("dep_1", "dep_2")


def test_a_wrong_dependency_is_named_by_its_place():
    assert wrong_fields(dependencies={"jdk": {"sha256": "x"}}).keys() == {"dependencies.jdk.sha256"}


@given(st.sampled_from(sorted(OBJECT.keys() | RAMP.keys() | {"os_list", "unknown"})), json_values)
def test_any_value_anywhere_gives_metadata_or_invalid_metadata(field, value):
    with contextlib.suppress(InvalidMetadata):
        json.dumps(parse_metadata({**OBJECT, **RAMP, field: value}).document)


@given(json_values)
def test_any_value_gives_metadata_or_invalid_metadata(value):
    with pytest.raises(InvalidMetadata):
        parse_metadata(value)
