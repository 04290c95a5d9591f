"""`read_shared_object`: what a server could load, and what would fail or kill it."""

import io
import struct

import pytest

from artifacts_app.package import InvalidArtifact
from artifacts_app.shared_object import read_shared_object

E_TYPE, E_MACHINE, E_SHOFF, E_PHOFF = 16, 18, 40, 32
E_PHENTSIZE, E_PHNUM, E_SHENTSIZE, E_SHNUM = 54, 56, 58, 60


def platform(data):
    return read_shared_object(io.BytesIO(data)).platform


@pytest.mark.parametrize(
    "names", [("RedisModule_OnLoad",), ("ValkeyModule_OnLoad",), ("RedisModule_OnLoad", "ValkeyModule_OnLoad")]
)
def test_all_entry_points_are_found(compile_c, names):
    built = compile_c("".join(f"int {name}(void) {{ return 0; }}\n" for name in names))
    assert read_shared_object(io.BytesIO(built)).entry_points == names


def patched(data, offset, form, value):
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, value)
    return bytes(changed)


def test_it_works(shared_object, machine):
    assert platform(shared_object) == f"linux/{machine}"


@pytest.mark.parametrize("name", ["RedisModule_OnLoad", "ValkeyModule_OnLoad"])
@pytest.mark.parametrize("attributes", ["", "__attribute__((weak))", '__attribute__((visibility("protected")))'])
def test_an_entry_point_is_found(compile_c, machine, name, attributes):
    assert platform(compile_c(f"{attributes} int {name}(void) {{ return 0; }}")) == f"linux/{machine}"


@pytest.mark.parametrize("options", [("-s",), ("-Wl,--hash-style=sysv",), ("-Wl,--hash-style=gnu", "-g"), ("-O2",)])
def test_a_linkers_options_do_not_matter(compile_c, machine, options):
    built = compile_c("int RedisModule_OnLoad(void) { return 0; }", "-shared", "-fPIC", *options)

    assert platform(built) == f"linux/{machine}"


def test_an_entry_point_is_found_inside_a_longer_name(compile_c):
    platform(compile_c("int RedisModule_OnLoad(void) { return 0; } int my_RedisModule_OnLoad(void) { return 0; }"))


@pytest.mark.parametrize(
    "source",
    [
        "int other(void) { return 0; }",
        "int my_RedisModule_OnLoad(void) { return 0; }",
        "int RedisModule_OnLoad2(void) { return 0; }",
        "int RedisModule_OnLoad = 1;",
        "__attribute__((used)) static int RedisModule_OnLoad(void) { return 0; }",
        '__attribute__((visibility("hidden"))) int RedisModule_OnLoad(void) { return 0; }',
        "int RedisModule_OnLoad(void); int other(void) { return RedisModule_OnLoad(); }",
    ],
    ids=["another name", "a longer name", "a name with a tail", "no function", "static", "hidden", "undefined"],
)
def test_a_shared_object_without_an_entry_point_is_refused(compile_c, source):
    with pytest.raises(InvalidArtifact, match="exports no function"):
        platform(compile_c(source))


def test_an_object_file_is_refused(compile_c):
    with pytest.raises(InvalidArtifact, match="not a shared object"):
        platform(compile_c("int RedisModule_OnLoad(void) { return 0; }", "-c"))


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"not a library", b"\xcf\xfa\xed\xfe" * 100, b"MZ" * 100, bytes(64)])
def test_what_is_no_elf_is_refused(data):
    with pytest.raises(InvalidArtifact, match="not an ELF shared object"):
        platform(data)


@pytest.mark.parametrize("number", [0, 3, 40, 243, 0xFFFF])
def test_an_unknown_machine_is_refused(shared_object, number):
    with pytest.raises(InvalidArtifact, match="built for a machine other than"):
        platform(patched(shared_object, E_MACHINE, "<H", number))


@pytest.mark.parametrize(("number", "name"), [(0x3E, "linux/x86_64"), (0xB7, "linux/aarch64")])
def test_the_machine_is_read_from_the_header(shared_object, number, name):
    assert platform(patched(shared_object, E_MACHINE, "<H", number)) == name


@pytest.mark.parametrize(("offset", "value"), [(4, 1), (5, 2), (4, 0), (5, 3)])
def test_32_bits_and_big_endian_are_refused(shared_object, offset, value):
    with pytest.raises(InvalidArtifact):
        platform(patched(shared_object, offset, "<B", value))


def test_another_system_is_refused(shared_object):
    with pytest.raises(InvalidArtifact, match="a system other than Linux"):
        platform(patched(shared_object, 7, "<B", 9))


def test_a_truncated_shared_object_is_refused_at_any_length(shared_object):
    for length in range(0, len(shared_object), 97):
        with pytest.raises(InvalidArtifact):
            platform(shared_object[:length])
    with pytest.raises(InvalidArtifact, match="truncated"):
        platform(shared_object[:-1])


def test_a_segment_behind_the_end_is_refused(shared_object):
    first = struct.unpack_from("<Q", shared_object, E_PHOFF)[0]

    for offset in (first + 8, first + 32):
        with pytest.raises(InvalidArtifact, match="truncated"):
            platform(patched(shared_object, offset, "<Q", len(shared_object) + 1))


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (E_PHNUM, "<H", 0),
        (E_PHNUM, "<H", 0xFFFF),
        (E_SHNUM, "<H", 0),
        (E_SHNUM, "<H", 0xFFFF),
        (E_PHENTSIZE, "<H", 1),
        (E_SHENTSIZE, "<H", 0),
        (E_SHOFF, "<Q", 2**64 - 1),
        (E_PHOFF, "<Q", 2**63),
        (E_TYPE, "<H", 2),
    ],
)
def test_a_header_that_lies_is_refused(shared_object, offset, form, value):
    with pytest.raises(InvalidArtifact):
        platform(patched(shared_object, offset, form, value))
