"""`inspect_package`: what belongs in a package, and what `module.json` may say of it."""

import io
import json
import random
import re
import zipfile

import pytest

from artifacts_app.manifest import Member, content_digest
from artifacts_app.package import InvalidArtifact, InvalidMetadata, find_problems


def test_it_works(inspect, zipped, files, machine, sha256):
    package = inspect(zipped(files))

    assert package.metadata.module_name == "test"
    assert package.metadata.version == 10203
    assert package.module_file == "test.so"
    assert package.platforms == (f"linux/{machine}",)
    assert package.dependencies == ()
    assert package.members == tuple(
        Member(path=path, size=len(files[path]), sha256=sha256(files[path])) for path in sorted(files)
    )
    assert package.content_sha256 == content_digest(package.members)


def test_packed_again_it_is_the_same_build(inspect, zipped, files):
    again = {path: files[path] for path in reversed(files)}

    assert inspect(zipped(files)) == inspect(zipped(again, zipfile.ZIP_STORED))


def test_dependencies_are_what_module_json_and_the_folder_have(inspect, zipped, files, document, sha256):
    named = {**document, "dependencies": {"jdk": {"sha256": sha256(b"jdk")}, "json": {}}}
    packed = {"deps/": b"", "deps/jdk.tgz": b"jdk", "deps/libx.so": b"x", "module.json": json.dumps(named)}

    package = inspect(zipped({**files, **packed}))

    assert package.dependencies == ("jdk", "json", "libx.so")
    assert [member.path for member in package.members] == ["deps/jdk.tgz", "deps/libx.so", "module.json", "test.so"]


def test_a_packed_dependency_must_have_its_digest(inspect, zipped, files, document):
    named = {**document, "dependencies": {"jdk": {"sha256": "ab" * 32}}}

    with pytest.raises(InvalidArtifact, match=r"deps/jdk.tgz is not the file"):
        inspect(zipped({**files, "deps/jdk.tgz": b"jdk", "module.json": json.dumps(named)}))


def test_a_large_shared_object_is_inspected_from_disk(inspect, zipped, files):
    large = files["test.so"] + random.Random(1).randbytes(2 * 1024 * 1024)

    assert inspect(zipped({**files, "test.so": large})).members[-1].size == len(large)


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "src/module.c",
        "deps/jdk/bin",
        "docs/",
        "deps/jdk/",
        "MODULE.JSON",
        "module.json/",
        "__MACOSX/._test.so",
        "sub/other.so",
        "test.so.1",
    ],
)
def test_a_file_that_does_not_belong_is_refused(inspect, zipped, files, path):
    with pytest.raises(InvalidArtifact):
        inspect(zipped({**files, path: b""}))


@pytest.mark.parametrize("name", ["", "b"])
def test_exactly_one_shared_object_is_wanted(inspect, zipped, files, name):
    others = {f"{name}.so": b"x"} if name else {}
    members = {**files, **others} if name else {"module.json": files["module.json"]}

    with pytest.raises(InvalidArtifact, match=r"one \.so file next to module.json, not"):
        inspect(zipped(members))


@pytest.mark.parametrize("name", [".so", "-x.so", "my module.so", 'a".so', "ä.so", "x" * 126 + ".so"])
def test_a_name_that_a_configuration_would_have_to_quote_is_refused(inspect, zipped, files, name):
    with pytest.raises(InvalidArtifact, match="name must be letters"):
        inspect(zipped({name: files["test.so"], "module.json": files["module.json"]}))


def test_a_missing_module_json_is_a_bad_artifact(inspect, zipped, files):
    with pytest.raises(InvalidArtifact, match=r"no module\.json"):
        inspect(zipped({"test.so": files["test.so"]}))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000, b" " * (1024 * 1024 + 1)]
)
def test_a_bad_module_json_is_bad_metadata(inspect, zipped, files, content):
    with pytest.raises(InvalidMetadata) as caught:
        inspect(zipped({**files, "module.json": content}))

    assert caught.value.code == "invalid_module"


def test_module_json_names_its_wrong_fields(inspect, zipped, files, document):
    with pytest.raises(InvalidMetadata) as caught:
        inspect(zipped({**files, "module.json": json.dumps({**document, "version": 1.5, "capabilities": None})}))

    assert caught.value.fields.keys() == {"version", "capabilities"}


@pytest.mark.parametrize("claim", [{"module_file": "other.so"}, {"architecture": "sparc"}])
def test_metadata_that_contradicts_the_shared_object_is_refused(inspect, zipped, files, document, claim):
    with pytest.raises(InvalidMetadata) as caught:
        inspect(zipped({**files, "module.json": json.dumps({**document, **claim})}))

    assert caught.value.fields.keys() == claim.keys()


def test_metadata_that_fits_the_shared_object_is_accepted(inspect, zipped, files, document, machine, sha256):
    claims = {"module_file": "test.so", "architecture": machine, "sha256": sha256(files["test.so"]).upper()}

    package = inspect(zipped({**files, "module.json": json.dumps({**document, **claims})}))

    assert package.metadata.module_file == package.module_file


def test_a_digest_that_is_not_the_shared_objects_is_refused(inspect, zipped, files, document):
    with pytest.raises(InvalidArtifact, match="its SHA-256 differs") as caught:
        inspect(zipped({**files, "module.json": json.dumps({**document, "sha256": "ab" * 32})}))

    assert caught.value.code == "invalid_artifact"


def test_all_problems_are_found_where_the_first_is_raised(inspect, zipped, files, document):
    bad = zipped({**files, "evil.sh": b"x", "module.json": json.dumps(document | {"version": "x"}).encode()})
    found = find_problems(io.BytesIO(bad), max_unpacked_bytes=10**6, max_members=10)
    assert [type(problem) for problem in found] == [InvalidArtifact, InvalidMetadata]
    with pytest.raises(InvalidArtifact, match=re.escape(str(found[0]))):
        inspect(bad)
