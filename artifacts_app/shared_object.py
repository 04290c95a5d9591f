"""Checks if a file is a module that a server can load, from its ELF headers and without loading it.

The checks find accidents: the wrong file, a build for another machine, an incomplete transfer. A server that maps a
truncated shared object is killed by SIGBUS. They do not find hostile code: a user who may upload may run code anyway.
"""

import re
import struct
from dataclasses import dataclass
from typing import IO, Any

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from artifacts_app.exceptions import InvalidArtifact

MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}
#: Redis uses the first; Valkey the second, or else the first.
ENTRY_POINTS = (b"RedisModule_OnLoad", b"ValkeyModule_OnLoad")

#: A linker writes about 10 segments and 40 sections.
MAX_SEGMENTS = 256
MAX_SECTIONS = 1024
#: Bytes of the dynamic symbols, and of their names; LLVM, larger than any module, has 3 MiB of them.
MAX_SYMBOLS = 16 * 1024 * 1024

_SYMBOL = struct.Struct("<IBBHQQ")
_FUNCTION = 2
_GLOBAL, _WEAK = 1, 2
_HIDDEN_VISIBILITIES = frozenset({1, 2})  # internal, hidden

#: The errors of pyelftools for an inconsistent file.
_UNREADABLE = (
    ELFError,
    ConstructError,
    struct.error,
    AssertionError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedObject:
    """`platform`: such as `linux/x86_64`. `entry_points`: the functions that it exports for servers, at least one."""

    platform: str
    entry_points: tuple[str, ...]


def read_shared_object(file: IO[bytes]) -> SharedObject:
    """Return what the module in `file` says of itself. It must be complete and export an entry point.

    Raises: `InvalidArtifact`.
    """
    try:
        return _read_shared_object(file)
    except InvalidArtifact:
        raise
    except _UNREADABLE:
        raise InvalidArtifact("the shared object is damaged: its ELF headers cannot be read") from None


def _read_shared_object(file: IO[bytes]) -> SharedObject:
    if file.seek(0, 2) < 64 or _read_at(file, 0, 4) != b"\x7fELF":
        raise InvalidArtifact("the .so file is not an ELF shared object")
    elf = ELFFile(file)
    machine = _machine(elf)
    _check_segments(elf)
    sections = _checked_sections(elf)
    entry_points = _exported_entry_points(elf, sections)
    if not entry_points:
        raise InvalidArtifact("the shared object exports no function RedisModule_OnLoad or ValkeyModule_OnLoad")
    return SharedObject(platform=f"linux/{machine}", entry_points=entry_points)


def _machine(elf: ELFFile) -> str:
    header = elf.header
    if header["e_type"] != "ET_DYN":
        raise InvalidArtifact("the .so file is an ELF file, but not a shared object")
    machine = MACHINES.get(header["e_machine"])
    if machine is None or elf.elfclass != 64 or not elf.little_endian:
        raise InvalidArtifact("the shared object is built for a machine other than 64-bit x86_64 or aarch64")
    if header["e_ident"]["EI_OSABI"] not in {"ELFOSABI_SYSV", "ELFOSABI_LINUX"}:
        raise InvalidArtifact("the shared object is built for a system other than Linux")
    return machine


def _check_segments(elf: ELFFile) -> None:
    count = elf.header["e_phnum"]
    if count > MAX_SEGMENTS:
        raise InvalidArtifact(f"the shared object has more than {MAX_SEGMENTS} segments")
    segments = _table(elf, elf.structs.Elf_Phdr, elf.header["e_phoff"], elf.header["e_phentsize"], count)
    for segment in segments:
        _check_inside(elf, segment["p_offset"], segment["p_filesz"])
    kinds = {segment["p_type"] for segment in segments}
    if not {"PT_LOAD", "PT_DYNAMIC"} <= kinds:
        raise InvalidArtifact("the shared object has nothing that can be loaded")


def _checked_sections(elf: ELFFile) -> list[Any]:
    header = elf.header
    # If there are more than 65,279 sections, this is 0, as in a file without sections.
    count = header["e_shnum"]
    if not 0 < count <= MAX_SECTIONS:
        raise InvalidArtifact(f"the shared object has no sections, or more than {MAX_SECTIONS}")
    sections = _table(elf, elf.structs.Elf_Shdr, header["e_shoff"], header["e_shentsize"], count)
    for section in sections:
        if section["sh_type"] not in {"SHT_NULL", "SHT_NOBITS"}:
            _check_inside(elf, section["sh_offset"], section["sh_size"])
    return sections


def _table(elf: ELFFile, kind: Any, offset: int, step: int, count: int) -> list[Any]:
    if step != kind.sizeof():
        raise InvalidArtifact("the shared object is damaged: its ELF headers cannot be read")
    _check_inside(elf, offset, step * count)
    return [struct_parse(kind, elf.stream, offset + step * index) for index in range(count)]


def _check_inside(elf: ELFFile, offset: int, length: int) -> None:
    if offset + length > elf.stream_len:
        raise InvalidArtifact("the shared object is truncated: some of its parts are after its end")


def _exported_entry_points(elf: ELFFile, sections: list[Any]) -> tuple[str, ...]:
    """Return the entry points that dlsym finds. Reads bytes: pyelftools takes 47 µs a symbol, and modules have thousands."""
    for section in sections:
        if section["sh_type"] == "SHT_DYNSYM" and section["sh_link"] < len(sections):
            symbols = _section_bytes(elf, section)
            names = _section_bytes(elf, sections[section["sh_link"]])
            offsets = _offsets_of_entry_points(names)
            whole = memoryview(symbols)[: len(symbols) // _SYMBOL.size * _SYMBOL.size]
            found = {
                offsets[name]
                for name, info, other, home, _, _ in _SYMBOL.iter_unpack(whole)
                if name in offsets and _is_exported_function(info, other, home)
            }
            return tuple(sorted(found))
    return ()


def _section_bytes(elf: ELFFile, section: Any) -> bytes:
    if section["sh_type"] == "SHT_NOBITS":
        return b""
    if section["sh_size"] > MAX_SYMBOLS:
        raise InvalidArtifact(f"the shared object has more than {MAX_SYMBOLS} bytes of symbols")
    return _read_at(elf.stream, section["sh_offset"], section["sh_size"])


def _offsets_of_entry_points(names: bytes) -> dict[int, str]:
    """Return the entry points by the offset of their names. A linker may put a name at the end of a longer name."""
    return {
        match.start(): entry_point.decode()
        for entry_point in ENTRY_POINTS
        for match in re.finditer(re.escape(entry_point + b"\0"), names)
    }


def _is_exported_function(info: int, other: int, home: int) -> bool:
    """Return True if a symbol with this binding and type, visibility and section is exported. Section 0 is none."""
    return (
        info & 0xF == _FUNCTION
        and info >> 4 in {_GLOBAL, _WEAK}
        and other & 3 not in _HIDDEN_VISIBILITIES
        and home != 0
    )


def _read_at(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
