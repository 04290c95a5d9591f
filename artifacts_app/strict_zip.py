"""Reads an untrusted zip archive, one member at a time and in small pieces.

Stricter than the format, so that every reader sees the same files. Members fill the archive from its first byte to the
central directory without overlap (no zip bombs). Local headers match the directory. Paths are plain and distinct. Sizes
and CRC are right. Layout: PKWARE's APPNOTE.TXT 6.3, section 4.3.
"""

import re
import stat
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import IO

from artifacts_app.exceptions import InvalidArtifact

#: The most that is read at a time, and the longest piece of a member, bytes.
PIECE = 256 * 1024
#: A member of more than GRACE bytes may unpack to this many times its compressed size. Deflate reaches 1032.
MAX_RATIO = 100
RATIO_GRACE = 1024 * 1024
#: Bytes of the central directory per member, on average: header, path, extra fields and comment.
MAX_ENTRY = 2048

#: Bytes of a path, and of each of its parts.
MAX_PATH = 512
MAX_PART = 255

STORED, DEFLATED = 0, 8
#: Version in tenths, of APPNOTE.TXT 6.3. Other readers refuse newer versions too.
NEWEST_VERSION = 63
ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
DESCRIPTOR = 1 << 3
PATCH = 1 << 5
UTF8 = 1 << 11
#: CRC and two sizes of 4 or 8 bytes, with or without a signature.
DESCRIPTOR_SIZES = frozenset({12, 16, 20, 24})

_END = Struct("<4s4H2LH")
_END64_LOCATOR = Struct("<4sLQL")
_END64 = Struct("<4sQ2H2L4Q")
_CENTRAL = Struct("<4s6H3L5H2L")
_LOCAL = Struct("<4s5H3L2H")
_EXTRA = Struct("<2H")
_ZIP64_EXTRA = 0x0001
_UNICODE_PATH_EXTRA = 0x7075
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A member, from the central directory. Sizes and offset are in bytes. A directory's path ends with `/`."""

    path: str
    size: int
    compressed_size: int
    crc: int
    flags: int
    method: int
    offset: int

    @property
    def is_directory(self) -> bool:
        return self.path.endswith("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Directory:
    """The place of the central directory."""

    entries: int
    offset: int
    size: int


def read_entries(file: IO[bytes], *, max_members: int) -> tuple[Entry, ...]:
    """Return the members of the archive in the order of their data. `read_content` reads their content.

    Raises: `InvalidArtifact`.
    """
    directory = _find_directory(file)
    if directory.entries > max_members:
        raise InvalidArtifact(f"the archive has {directory.entries} members, more than {max_members}")
    if directory.size > directory.entries * MAX_ENTRY:
        raise InvalidArtifact("the archive's directory is too large for its number of members")
    entries = _parse_directory(_read_at(file, directory.offset, directory.size), directory.entries)
    _refuse_same_paths(entries)
    in_order = tuple(sorted(entries, key=lambda entry: entry.offset))
    _check_layout(file, in_order, end=directory.offset)
    return in_order


def read_content(file: IO[bytes], entry: Entry) -> Iterator[bytes]:
    """Yield the content of `entry` in pieces of at most `PIECE` bytes. It is only verified when the iterator has ended.

    Raises: `InvalidArtifact`, as soon as there is more than `entry.size`.
    """
    if entry.size > RATIO_GRACE and entry.size > MAX_RATIO * entry.compressed_size:
        raise InvalidArtifact(f"{entry.path!r} unpacks to more than {MAX_RATIO} times its size")
    size = crc = 0
    for piece in _unpack(file, entry):
        size += len(piece)
        crc = zlib.crc32(piece, crc)
        if size > entry.size:
            break
        yield piece
    if size != entry.size:
        raise InvalidArtifact(f"{entry.path!r} does not unpack to the size that the archive names")
    if crc != entry.crc:
        raise InvalidArtifact(f"{entry.path!r} is damaged: its CRC is wrong")


def _unpack(file: IO[bytes], entry: Entry) -> Iterator[bytes]:
    # Read again: `_check_layout` has checked that path and extra field are inside the archive.
    local = _LOCAL.unpack(_read_at(file, entry.offset, _LOCAL.size))
    start = entry.offset + _LOCAL.size + local[-2] + local[-1]
    chunks = _read_pieces(file, start, entry.compressed_size)
    return chunks if entry.method == STORED else _inflate(chunks, entry.path)


def _inflate(chunks: Iterator[bytes], path: str) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for chunk in chunks:
            waiting = chunk
            while waiting and not inflater.eof:
                yield inflater.decompress(waiting, PIECE)
                waiting = inflater.unconsumed_tail
        while not inflater.eof and (rest := inflater.decompress(b"", PIECE)):
            yield rest
    except zlib.error:
        raise InvalidArtifact(f"{path!r} is damaged: it cannot be unpacked") from None
    if not inflater.eof:
        raise InvalidArtifact(f"{path!r} is damaged: its end is missing")
    if inflater.unused_data:
        raise InvalidArtifact(f"{path!r} is damaged: bytes follow its end")


def _find_directory(file: IO[bytes]) -> _Directory:
    size = file.seek(0, 2)
    tail = _read_at(file, max(0, size - _END.size - _FULL16), min(size, _END.size + _FULL16))
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise InvalidArtifact("the file is not a zip archive, or its end is missing")
    _, disk, first_disk, here, entries, length, offset, comment = _END.unpack_from(tail, at)
    if len(tail) - at - _END.size != comment:
        raise InvalidArtifact("bytes follow the end of the archive")
    if disk or first_disk or here != entries:
        raise InvalidArtifact("the archive is split over several files")
    end = size - len(tail) + at
    found = _Directory(entries=entries, offset=offset, size=length)
    large = _find_directory64(file, end, found)
    if large is not None:
        found, end = large
    if found.offset + found.size != end:
        raise InvalidArtifact("the archive's directory does not end where the archive does")
    return found


def _find_directory64(file: IO[bytes], end: int, small: _Directory) -> tuple[_Directory, int] | None:
    """Return the zip64 directory and the offset of its end record, if the archive has one."""
    if end < _END64.size + _END64_LOCATOR.size:
        return None
    at = end - _END64_LOCATOR.size
    signature, disk, record_at, disks = _END64_LOCATOR.unpack(_read_at(file, at, _END64_LOCATOR.size))
    if signature != b"PK\6\7":
        return None
    if disk or disks > 1 or record_at > at - _END64.size:
        raise InvalidArtifact("the archive's zip64 record is damaged")
    record = _END64.unpack(_read_at(file, record_at, _END64.size))
    signature, length, _, _, disk, first_disk, here, entries, directory_size, offset = record
    if signature != b"PK\6\6" or disk or first_disk or here != entries or record_at + 12 + length != at:
        raise InvalidArtifact("the archive's zip64 record is damaged")
    if (
        small.entries not in {_FULL16, entries}
        or small.offset not in {_FULL32, offset}
        or small.size not in {_FULL32, directory_size}
    ):
        raise InvalidArtifact("the archive's two end records contradict each other")
    return _Directory(entries=entries, offset=offset, size=directory_size), record_at


def _parse_directory(data: bytes, count: int) -> list[Entry]:
    entries = []
    at = 0
    for _ in range(count):
        if len(data) - at < _CENTRAL.size:
            raise InvalidArtifact("the archive's directory ends too early")
        header = _CENTRAL.unpack_from(data, at)
        end = at + _CENTRAL.size + sum(header[10:13])
        if header[0] != b"PK\1\2" or end > len(data):
            raise InvalidArtifact("the archive's directory is damaged")
        entries.append(_parse_entry(header, data[at + _CENTRAL.size : end]))
        at = end
    if at != len(data):
        raise InvalidArtifact("the archive's directory has more entries than it says")
    return entries


def _parse_entry(header: tuple[int, ...], rest: bytes) -> Entry:
    _, _, needed, flags, method, _, _, crc, compressed, size, *lengths, disk, _, attributes, offset = header
    name_length, extra_length, _ = lengths
    name = rest[:name_length]
    path = _path(name, flags)
    extras = _extras(rest[name_length : name_length + extra_length], path)
    size, compressed, offset, disk = _widened((size, compressed, offset), disk, extras, path)
    if flags & ENCRYPTED:
        raise InvalidArtifact(f"{path!r} is encrypted")
    if flags & PATCH or method not in {STORED, DEFLATED}:
        raise InvalidArtifact(f"{path!r} is compressed in a way other than deflate")
    if needed & 0xFF > NEWEST_VERSION:
        raise InvalidArtifact(f"{path!r} needs a newer version of the zip format")
    if disk:
        raise InvalidArtifact("the archive is split over several files")
    # Newer readers use the path in this field instead.
    if _UNICODE_PATH_EXTRA in extras and extras[_UNICODE_PATH_EXTRA][5:] != name:
        raise InvalidArtifact(f"{path!r} has a second path")
    entry = Entry(path=path, size=size, compressed_size=compressed, crc=crc, flags=flags, method=method, offset=offset)
    _refuse_special(entry, attributes >> 16)
    if method == STORED and size != compressed:
        raise InvalidArtifact(f"{path!r} has two sizes although it is not compressed")
    return entry


def _widened(fields: tuple[int, int, int], disk: int, extras: dict[int, bytes], path: str) -> tuple[int, int, int, int]:
    """Return size, compressed size, offset and disk: each from the zip64 extra field if its own field is full."""
    wide = extras.get(_ZIP64_EXTRA, b"")
    values = []
    for value in fields:
        if value != _FULL32:
            values.append(value)
            continue
        if len(wide) < 8:
            raise InvalidArtifact(f"{path!r} lacks its size or offset")
        values.append(int.from_bytes(wide[:8], "little"))
        wide = wide[8:]
    if disk == _FULL16:
        disk = int.from_bytes(wide[:4], "little")
    size, compressed, offset = values
    return size, compressed, offset, disk


def _extras(data: bytes, path: str) -> dict[int, bytes]:
    """Return the extra fields by tag. A tag twice is refused: readers differ in which one they use."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _EXTRA.size <= len(data):
        tag, length = _EXTRA.unpack_from(data, at)
        at += _EXTRA.size + length
        if at > len(data) or tag in found:
            raise InvalidArtifact(f"{path!r} has damaged extra fields")
        found[tag] = data[at - length : at]
    return found


def _path(name: bytes, flags: int) -> str:
    try:
        path = name.decode("utf-8" if flags & UTF8 else "ascii")
    except UnicodeDecodeError:
        raise InvalidArtifact("a path in the archive is neither ASCII nor marked as UTF-8") from None
    parts = path.removesuffix("/").split("/")
    if not path.isprintable() or "\\" in path:
        raise InvalidArtifact(f"{path[:80]!r} has control characters or backslashes in its path")
    if any(part in {"", ".", ".."} for part in parts) or re.match("[A-Za-z]:", path):
        raise InvalidArtifact(f"{path[:80]!r} is not a plain relative path")
    if len(name) > MAX_PATH or any(len(part.encode()) > MAX_PART for part in parts):
        raise InvalidArtifact(f"{path[:80]!r}...: the path is too long")
    return path


def _refuse_special(entry: Entry, mode: int) -> None:
    """Refuse special files. Archives made on Unix have the file's mode; in others it is 0."""
    kind = stat.S_IFMT(mode)
    if kind not in ({0, stat.S_IFDIR} if entry.is_directory else {0, stat.S_IFREG}):
        raise InvalidArtifact(f"{entry.path!r} is a link, a device or otherwise not a plain file")
    if entry.is_directory and entry.size:
        raise InvalidArtifact(f"{entry.path!r} is a directory with content")


def _refuse_same_paths(entries: list[Entry]) -> None:
    """Refuse paths that some file systems consider equal, by case or by the encoding of accents."""
    seen: dict[str, str] = {}
    for entry in entries:
        key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", entry.path).casefold()).removesuffix("/")
        if key in seen:
            raise InvalidArtifact(f"{entry.path!r} is in the archive twice, the other time as {seen[key]!r}")
        seen[key] = entry.path


def _check_layout(file: IO[bytes], entries: tuple[Entry, ...], *, end: int) -> None:
    """Check that the members follow each other from the archive's first byte to its directory."""
    expected, slack = 0, frozenset({0})
    for entry in entries:
        _check_gap(entry.offset - expected, slack)
        expected = _check_local_header(file, entry, end=end)
        slack = DESCRIPTOR_SIZES if entry.flags & DESCRIPTOR else frozenset({0})
    _check_gap(end - expected, slack)


def _check_gap(gap: int, allowed: frozenset[int]) -> None:
    if gap < 0:
        raise InvalidArtifact("members of the archive overlap")
    if gap not in allowed:
        raise InvalidArtifact("the archive has bytes that belong to no member")


def _check_local_header(file: IO[bytes], entry: Entry, *, end: int) -> int:
    """Check that the member's own header matches the directory. Return the offset of the end of its data."""
    if entry.offset + _LOCAL.size > end:
        raise InvalidArtifact(f"{entry.path!r} is outside of the archive")
    header = _LOCAL.unpack(_read_at(file, entry.offset, _LOCAL.size))
    signature, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = header
    data_at: int = entry.offset + _LOCAL.size + name_length + extra_length
    if signature != b"PK\3\4" or data_at + entry.compressed_size > end:
        raise InvalidArtifact(f"{entry.path!r} is outside of the archive")
    rest = _read_at(file, entry.offset + _LOCAL.size, name_length + extra_length)
    watched = ENCRYPTED | PATCH | UTF8 | DESCRIPTOR
    agrees = (
        (flags ^ entry.flags) & watched == 0
        and method == entry.method
        and _decoded(rest[:name_length], flags) == entry.path
    )
    if agrees and not flags & DESCRIPTOR:
        extras = _extras(rest[name_length:], entry.path)
        size, compressed, _, _ = _widened((size, compressed, 0), 0, extras, entry.path)
        agrees = (crc, compressed, size) == (entry.crc, entry.compressed_size, entry.size)
    if not agrees:
        raise InvalidArtifact(f"{entry.path!r} is described in two ways by the archive")
    return data_at + entry.compressed_size


def _decoded(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & UTF8 else "ascii", errors="replace")


def _read_at(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    return _read_exactly(file, length)


def _read_pieces(file: IO[bytes], offset: int, length: int) -> Iterator[bytes]:
    for at in range(offset, offset + length, PIECE):
        yield _read_at(file, at, min(PIECE, offset + length - at))


def _read_exactly(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise InvalidArtifact("the archive ends too early")
    return data
