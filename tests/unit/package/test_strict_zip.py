"""Archives that lie, overlap, explode or lead out of their folder."""

import io
import os
import stat
import struct
import zipfile
import zlib

import pytest

from artifacts_app.package import InvalidArtifact, inspect_package


def info(path, **attributes):
    made = zipfile.ZipInfo(path)
    made.compress_type = zipfile.ZIP_DEFLATED
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def patched(data, offset, form, value):
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, value)
    return bytes(changed)


def directory_at(data):
    return struct.unpack_from("<L", data, len(data) - 6)[0]


def records(entries):
    """Central directory and end of an archive whose `entries` are (path, content, offset)."""
    directory = b"".join(
        struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(path),
            0, 0, 0, 0, 0, offset,
        )
        + path
        for path, content, offset in entries
    )  # fmt: skip
    return directory, len(entries)


def local(path, content):
    header = struct.pack(
        "<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(path), 0
    )
    return header + path + content


def archive(body, entries):
    directory, count = records(entries)
    return body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


def test_it_works(inspect, files):
    body, entries = b"", []
    for path, content in files.items():
        entries.append((path.encode(), content, len(body)))
        body += local(path.encode(), content)

    assert inspect(archive(body, entries)).module_file == "test.so"


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\5\6", b"\x7fELF" * 50, b"Rar!\x1a\x07", b"\0" * 70_000])
def test_what_is_no_zip_is_refused(inspect, data):
    with pytest.raises(InvalidArtifact, match="not a zip archive"):
        inspect(data)


def test_an_empty_zip_is_refused(inspect, zipped):
    with pytest.raises(InvalidArtifact, match=r"one \.so file"):
        inspect(zipped({}))


def test_a_comment_is_ignored(inspect, files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.comment = b"made by hand"
        for path, content in files.items():
            made.writestr(path, content)

    assert inspect(out.getvalue()).module_file == "test.so"


@pytest.mark.parametrize("around", [(b"#!/bin/sh\n", b""), (b"", b"\n"), (b"", b"\0" * 1000), (b"\0", b"\0")])
def test_bytes_around_the_archive_are_refused(inspect, zipped, files, around):
    with pytest.raises(InvalidArtifact):
        inspect(around[0] + zipped(files) + around[1])


def test_a_prefix_that_the_offsets_know_of_is_refused(inspect, files):
    out = io.BytesIO(b"#!/bin/sh\n")
    out.seek(0, 2)
    with zipfile.ZipFile(out, "a") as made:
        for path, content in files.items():
            made.writestr(path, content)

    with pytest.raises(InvalidArtifact, match="belong to no member"):
        inspect(out.getvalue())


def test_two_archives_in_one_file_are_refused(inspect, zipped, files):
    with pytest.raises(InvalidArtifact):
        inspect(zipped(files) + zipped({**files, "deps/other": b""}))


def test_a_streamed_archive_with_data_descriptors_is_read(inspect, files):
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.written = b""

        def writable(self):
            return True

        def write(self, data):
            self.written += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made:
        for path, content in files.items():
            made.writestr(path, content)

    assert inspect(pipe.written).module_file == "test.so"


def test_zip64_is_read(inspect, files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for path, content in files.items():
            with made.open(path, "w", force_zip64=True) as member:
                member.write(content)

    assert inspect(out.getvalue()).module_file == "test.so"


def zip64_end(data, **changes):
    """The archive `data` with its end told by zip64 records."""
    _, _, _, _, count, size, offset, _ = struct.unpack("<4s4H2LH", data[-22:])
    fields = {"count": count, "size": size, "offset": offset, "record": len(data) - 22, **changes}
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, fields["count"], fields["count"], fields["size"], fields["offset"]
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, fields["record"], 1)
    small = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:-22] + record + locator + small


def test_a_zip64_end_is_read(inspect, zipped, files):
    assert inspect(zip64_end(zipped(files))).module_file == "test.so"


@pytest.mark.parametrize("field", ["count", "size", "offset", "record"])
@pytest.mark.parametrize("value", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_a_zip64_end_that_lies_is_refused(inspect, zipped, files, field, value):
    with pytest.raises(InvalidArtifact):
        inspect(zip64_end(zipped(files), **{field: value}))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd.so",
        "../test.so",
        "deps/../../x",
        "deps/..",
        "deps/./x",
        "deps//x",
        "deps\\x",
        "C:/x.so",
        "c:x.so",
        "deps/a\x01b",
        "deps/a\nb",
        "deps/a\u202eb",
        "deps/" + "x" * 256,
        "//x",
    ],
)
def test_a_path_that_is_not_plain_is_refused(inspect, zipped, files, path):
    with pytest.raises(InvalidArtifact, match="path"):
        inspect(zipped({**files, path: b""}))


def test_a_path_with_a_nul_is_refused(inspect, zipped, files):
    data = zipped({**files, "deps/aXb": b""}).replace(b"deps/aXb", b"deps/a\0b")

    with pytest.raises(InvalidArtifact, match="control characters"):
        inspect(data)


def test_a_path_in_an_unknown_encoding_is_refused(inspect, zipped, files):
    data = zipped({**files, "deps/aXb": b""}).replace(b"deps/aXb", b"deps/a\xe4b")

    with pytest.raises(InvalidArtifact, match="neither ASCII nor marked as UTF-8"):
        inspect(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("deps/a", "deps/a"),
        ("deps/a", "deps/A"),
        ("deps/\u00e4", "deps/a\u0308"),
        ("deps/stra\u00dfe", "deps/STRASSE"),
        ("deps/\ufb01", "deps/fi"),
        ("deps/a", "deps/a/"),
    ],
)
def test_the_same_path_twice_is_refused(inspect, files, one, other):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for path, content in [*files.items(), (one, b""), (other, b"")]:
            made.writestr(path, content)

    with pytest.raises(InvalidArtifact, match="in the archive twice"):
        inspect(out.getvalue())


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFDIR])
def test_what_is_no_plain_file_is_refused(inspect, zipped, files, kind):
    with pytest.raises(InvalidArtifact, match="not a plain file"):
        inspect(zipped({**files, info("deps/x", external_attr=(kind | 0o777) << 16): b"/etc/passwd"}))


def test_a_folder_with_content_is_refused(inspect, zipped, files):
    with pytest.raises(InvalidArtifact, match="a directory with content"):
        inspect(zipped({**files, info("deps/"): b"x"}))


@pytest.mark.parametrize("flag", [1 << 0, 1 << 6, 1 << 13])
def test_an_encrypted_member_is_refused(inspect, zipped, files, flag):
    data = zipped(files)

    with pytest.raises(InvalidArtifact, match="encrypted"):
        inspect(patched(data, directory_at(data) + 8, "<H", flag))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(inspect, zipped, files, method):
    with pytest.raises(InvalidArtifact, match="other than deflate"):
        inspect(zipped(files, method))


@pytest.mark.parametrize(
    ("offset", "form", "value", "words"),
    [
        (6, "<H", 64, "newer version"),
        (16, "<L", 1, "described in two ways"),  # CRC
        (20, "<L", 1, "described in two ways|belong to no member"),  # compressed size
        (24, "<L", 1, "described in two ways"),  # size
        (24, "<L", 0xFFFFFFFF, "lacks its size"),
        (10, "<H", 0, "two sizes"),  # method
        (34, "<H", 1, "split over several files"),
        (42, "<L", 1, "belong to no member"),  # offset
        (46, "<B", ord("T"), "described in two ways"),  # first letter of the path
    ],
)
def test_a_directory_that_contradicts_the_member_is_refused(inspect, zipped, files, offset, form, value, words):
    data = zipped(files)

    with pytest.raises(InvalidArtifact, match=words):
        inspect(patched(data, directory_at(data) + offset, form, value))


def test_another_path_in_the_local_header_is_refused(inspect, zipped, files):
    with pytest.raises(InvalidArtifact, match="described in two ways"):
        inspect(patched(zipped(files), 30, "<B", ord("X")))


def test_a_second_path_in_an_extra_field_is_refused(inspect, zipped, files):
    second = struct.pack("<HHBL", 0x7075, 5 + 6, 1, zlib.crc32(b"deps/x")) + b"deps/y"

    with pytest.raises(InvalidArtifact, match="second path"):
        inspect(zipped({**files, info("deps/x", extra=second): b""}))


def test_damaged_content_is_refused(inspect, zipped, files):
    data = zipped(files, zipfile.ZIP_STORED)

    with pytest.raises(InvalidArtifact, match="its CRC is wrong"):
        inspect(patched(data, 30 + len("test.so") + 100, "<B", data[30 + len("test.so") + 100] ^ 1))


def test_members_that_share_their_bytes_are_refused(inspect, files):
    kernel = local(b"deps/b", b"x" * 1000)
    quoting = local(b"deps/a", kernel)
    entries = [(b"deps/a", kernel, 0), (b"deps/b", b"x" * 1000, len(quoting) - len(kernel))]

    with pytest.raises(InvalidArtifact, match="members of the archive overlap"):
        inspect(archive(quoting, entries))


def test_two_members_at_one_place_are_refused(inspect):
    with pytest.raises(InvalidArtifact, match="overlap"):
        inspect(archive(local(b"deps/a", b"x"), [(b"deps/a", b"x", 0), (b"deps/a2", b"x", 0)]))


def test_a_bomb_is_refused_before_it_is_unpacked(inspect, zipped, files):
    with pytest.raises(InvalidArtifact, match="more than 100 times"):
        inspect(zipped({**files, "deps/zeros": bytes(10 * 1024 * 1024)}))


def test_a_bomb_that_hides_its_size_is_refused(inspect, zipped, files):
    data = zipped({"deps/zeros": bytes(10 * 1024 * 1024), **files})
    small = patched(patched(data, directory_at(data) + 24, "<L", 5), 22, "<L", 5)

    with pytest.raises(InvalidArtifact, match="does not unpack to the size"):
        inspect(small)


def test_the_package_may_not_unpack_to_more_than_is_allowed(inspect, zipped, files):
    data = zipped(files)
    size = sum(map(len, files.values()))

    inspect(data, max_unpacked_bytes=size)
    with pytest.raises(InvalidArtifact, match="unpacks to more than"):
        inspect(data, max_unpacked_bytes=size - 1)


def test_the_package_may_not_have_more_members_than_are_allowed(inspect, zipped, files):
    data = zipped({**files, "deps/": b""})

    inspect(data, max_members=3)
    with pytest.raises(InvalidArtifact, match="3 members, more than 2"):
        inspect(data, max_members=2)


def test_a_package_on_disk_is_read_from_any_position(tmp_path, zipped, files):
    path = tmp_path / "package.zip"
    path.write_bytes(zipped(files))

    with path.open("rb") as file:
        file.seek(7, os.SEEK_SET)
        package = inspect_package(file, max_unpacked_bytes=10**6, max_members=10)

    assert package.module_file == "test.so"
