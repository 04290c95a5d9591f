"""Whatever the bytes are: a package, `InvalidArtifact` or `InvalidMetadata`."""

import contextlib
import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts_app.package import InspectedPackage, InvalidArtifact, InvalidMetadata
from artifacts_app.shared_object import read_shared_object

fraction = st.floats(0, 1, exclude_max=True)
#: Where bytes change, as fractions of the length, and what stands there then.
edits = st.lists(st.tuples(fraction, st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)


def edited(data, changes):
    changed = bytearray(data)
    for where, content in changes:
        at = int(where * len(data))
        changed[at : at + len(content)] = content
    return bytes(changed)


def outcome(inspect, data):
    try:
        return inspect(data)
    except (InvalidArtifact, InvalidMetadata) as error:
        return str(error)


@pytest.fixture(scope="module")
def good(zipped, files):
    return zipped({**files, "deps/": b"", "deps/jdk.tgz": b"jdk"})


def test_it_works(inspect, good):
    assert isinstance(outcome(inspect, good), InspectedPackage)


@given(data=st.binary(max_size=300))
def test_any_bytes(inspect, data):
    assert isinstance(outcome(inspect, data), str)


@settings(max_examples=300)
@given(changes=edits)
def test_a_package_with_changed_bytes(inspect, good, changes):
    assert outcome(inspect, edited(good, changes))


@settings(max_examples=300)
@given(where=st.integers(0, 600), content=st.binary(min_size=1, max_size=8))
def test_a_package_with_a_changed_directory(inspect, good, where, content):
    at = max(0, len(good) - where)

    assert outcome(inspect, good[:at] + content + good[at + len(content) :])


def test_what_is_accepted_is_what_zipfile_reads(inspect, good, sha256):
    """Whatever byte of the directory is another one. Only what stands twice, or counts for nothing, may be."""
    accepted = 0
    for at in range(good.index(b"PK\1\2"), len(good)):
        for value in (good[at] ^ 1, good[at] ^ 0x80):
            data = good[:at] + bytes([value]) + good[at + 1 :]
            package = outcome(inspect, data)
            if isinstance(package, InspectedPackage):
                accepted += 1
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    read = {each: sha256(archive.read(each)) for each in archive.namelist() if not each.endswith("/")}
                assert {each.path: each.sha256 for each in package.members} == read
    assert accepted > 100


@given(where=fraction)
def test_a_package_that_ends_too_early(inspect, good, where):
    assert isinstance(outcome(inspect, good[: int(where * len(good))]), str)


@settings(max_examples=300)
@given(changes=edits, headers=st.lists(st.tuples(st.integers(0, 800), st.binary(min_size=1, max_size=8)), max_size=3))
def test_a_shared_object_with_changed_bytes(shared_object, changes, headers):
    data = edited(shared_object, [*changes, *((at / len(shared_object), content) for at, content in headers)])

    with contextlib.suppress(InvalidArtifact):
        assert read_shared_object(io.BytesIO(data)).platform.startswith("linux/")


@given(content=st.binary(max_size=200))
def test_a_package_with_any_shared_object(inspect, zipped, files, content):
    assert isinstance(outcome(inspect, zipped({**files, "test.so": b"\x7fELF\2\1\1" + content})), str)


@given(content=st.binary(max_size=200))
def test_a_package_with_any_module_json(inspect, zipped, files, content):
    assert isinstance(outcome(inspect, zipped({**files, "module.json": content})), str)
