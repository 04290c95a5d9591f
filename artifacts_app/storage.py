"""Where packages are kept: any django-storages backend, under keys that are never shared."""

import hashlib
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage, default_storage

from api.failures import disk_refusal
from durable import sync_directory

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
#: Beside the packages: what is on its way in.
INCOMING = ".incoming"


class Spool:
    """A package on its way in: bytes to a temporary file, SHA-256 on the way. Removed when closed, unless stored.

    Raises: `StorageFullError`, `StorageUnavailableError`, from every method that writes; nothing is left then.
    """

    def __init__(self) -> None:
        with _refused_in_words():
            folder = _incoming()
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, self.path = tempfile.mkstemp(dir=folder)
        self.file: IO[bytes] = os.fdopen(descriptor, "w+b")
        self.size = 0
        self._digest = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        with _refused_in_words():
            self.file.write(chunk)
            self.file.flush()
        self._digest.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def store(self, *, key: str = "") -> str:
        """The key under which the whole package is now kept, durably: a new one, or one that was lost."""
        key = key or f"{self.sha256}/{uuid.uuid4().hex}"
        with _refused_in_words():
            try:
                self._store(key)
            except Exception:
                with suppress(Exception):
                    delete_package(key)
                raise
        return key

    def _store(self, key: str) -> None:
        os.fsync(self.file.fileno())
        self.file.seek(0)
        default_storage.save(key, _OnDisk(self.file, self.path))
        if (root := _root()) is not None:
            # A rename is durable once both directories are: the package's, and the one that contains it.
            sync_directory((root / key).parent)
            sync_directory(root)

    def close(self) -> None:
        with suppress(OSError):  # it tries once more to write what a full disk did not take
            self.file.close()
        Path(self.path).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _refused_in_words() -> Iterator[None]:
    """Raises: `StorageFullError`, `StorageUnavailableError`."""
    try:
        yield
    except Exception as error:  # the library of each storage has errors of its own
        logger.warning("a package cannot be kept: %s: %s", type(error).__name__, error)
        raise disk_refusal(error) from error


class _OnDisk(File[bytes]):
    """A file that a file-system storage may rename instead of copying."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        super().__init__(file)
        self._path = path

    def temporary_file_path(self) -> str:
        return self._path


def _root() -> Path | None:
    """The storage's own folder, None if it has none."""
    return Path(default_storage.location) if isinstance(default_storage, FileSystemStorage) else None


def _incoming() -> Path:
    """On the storage's own file system where it has one, so that storing is a rename."""
    return (_root() or settings.ENVIRONMENT.data_path) / INCOMING


def probe_spool() -> None:
    """There is room for a package on its way in. Raises: `OSError`."""
    folder = _incoming()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(CHUNK_BYTES))


def open_package(storage_key: str) -> IO[bytes]:
    """The package's bytes. Raises: `FileNotFoundError`."""
    return default_storage.open(storage_key, "rb")


def is_kept(storage_key: str) -> bool:
    """Return True if the package's bytes are there. Raises: `StorageUnavailableError`."""
    with _refused_in_words():
        return default_storage.exists(storage_key)


def delete_package(storage_key: str) -> None:
    """No error if it is gone already."""
    default_storage.delete(storage_key)


def stored_keys() -> Iterator[tuple[str, datetime]]:
    """Each key in the storage and when it was stored."""
    try:
        folders, _ = default_storage.listdir("")
    except FileNotFoundError:
        return  # nothing was ever stored
    for folder in folders:
        if folder == INCOMING:
            continue
        for name in default_storage.listdir(folder)[1]:
            key = f"{folder}/{name}"
            yield key, default_storage.get_modified_time(key)


def remove_abandoned_spools(before: datetime) -> None:
    """Delete temporary files that a process left behind when it was killed, last written before a moment."""
    for path in _incoming().glob("*"):
        try:
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
                path.unlink()
        except FileNotFoundError:
            continue  # its upload has ended in this moment
