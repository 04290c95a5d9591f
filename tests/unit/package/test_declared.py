"""What `module.json` declares must be in the package, and be as it says."""

import json

import pytest

from artifacts_app.exceptions import InvalidArtifact
from artifacts_app.package import InvalidMetadata

DIGEST = "ab" * 32


@pytest.fixture
def inspected(inspect, zipped, files, document):
    def inspected(*, members=None, **said):
        return inspect(zipped({**files, **(members or {}), "module.json": json.dumps({**document, **said})}))

    return inspected


@pytest.mark.parametrize(
    ("said", "members"),
    [
        ({"dependencies": {"jdk": {"sha256": DIGEST}}}, {}),
        ({"dependencies": {"jdk": {"url": "https://example.com/jdk.tgz"}}}, {}),
        ({"dependencies": [{"name": "jdk", "url": "https://example.com", "sha256": DIGEST}]}, {}),
        ({"dependencies": {"jdk": {"sha256": DIGEST}}}, {"deps/another.tgz": b"x"}),
        ({"dependencies": {"jdk": {"sha256": DIGEST}}}, {"deps/jdk.tgz": b"x"}),
        ({"dependencies": {"jdk": {"sha256": DIGEST}}}, {"deps/jdk": b"x"}),
        ({"sha256": DIGEST}, {}),
    ],
)
def test_a_declared_file_that_is_missing_or_another_one_is_refused(inspected, said, members):
    with pytest.raises(InvalidArtifact, match=r"declared in module.json|was made for"):
        inspected(**said, members=members)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("module_file", "another.so"),
        ("architecture", "sparc"),
        ("os", "Darwin"),
        ("operating_systems", ["rhel9/x86_64"]),
        ("operating_systems", [f"rhel{number}" for number in range(17)]),
        ("os_list", ["!"]),
        ("commands", [{"command_name": "a.b"}, {"command_name": "A.B"}]),
    ],
)
def test_what_is_not_so_is_refused(inspected, field, value):
    with pytest.raises(InvalidMetadata) as refused:
        inspected(**{field: value})
    assert refused.value.fields.keys() == {field}


def test_a_name_alone_is_a_module(inspected):
    assert inspected(dependencies=["json"]).dependencies == ("json",)


@pytest.mark.parametrize(
    ("said", "systems"),
    [
        ({"operating_systems": ["rhel9"]}, ["rhel9"]),
        ({"operating_systems": ["Rocky 9.3", "rhel8", "centos9"]}, ["rhel8", "rhel9"]),
        ({"os_list": ["ubuntu18.04"]}, ["ubuntu18"]),
        ({"operating_systems": [], "os_list": ["ubuntu18.04"]}, ["ubuntu18"]),
        ({"operating_systems": []}, ["linux"]),
        ({"operating_systems": ["Linux", "rhel9"]}, ["linux"]),
        ({"os": "Linux"}, ["linux"]),
    ],
)
def test_operating_systems_are_part_of_the_platform(inspected, machine, said, systems):
    assert inspected(**said).platforms == tuple(f"{each}/{machine}" for each in systems)
