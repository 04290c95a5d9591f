"""The storage of packages: any django-storages backend. A key is never used twice."""

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
#: The directory for incomplete uploads, next to the packages.
INCOMING = ".incoming"


class Spool:
    """An upload in a temporary file, with its SHA-256. `close` deletes the file unless it was stored.

    Raises: `StorageFullError`, `StorageUnavailableError`, from every method that writes. Then no file is left.
    """

    def __init__(self) -> None:
        with _disk_errors():
            directory = _incoming()
            directory.mkdir(parents=True, exist_ok=True)
            descriptor, self.path = tempfile.mkstemp(dir=directory)
        self.file: IO[bytes] = os.fdopen(descriptor, "w+b")
        self.size = 0
        self._digest = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        with _disk_errors():
            self.file.write(chunk)
            self.file.flush()
        self._digest.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def store(self, *, key: str = "") -> str:
        """Store the package durably and return its key: a new one, or `key` if its package was lost."""
        key = key or f"{self.sha256}/{uuid.uuid4().hex}"
        with _disk_errors():
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
        with suppress(OSError):  # it tries once more to write the bytes that a full disk has refused
            self.file.close()
        Path(self.path).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Raises: `StorageFullError`, `StorageUnavailableError`."""
    try:
        yield
    except Exception as error:  # each storage library has its own errors
        logger.warning("a package cannot be stored: %s: %s", type(error).__name__, error)
        raise disk_refusal(error) from error


class _OnDisk(File[bytes]):
    """A file that a file-system storage may rename instead of copy."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        super().__init__(file)
        self._path = path

    def temporary_file_path(self) -> str:
        return self._path


def _root() -> Path | None:
    """Return the directory of a file-system storage, or None."""
    return Path(default_storage.location) if isinstance(default_storage, FileSystemStorage) else None


def _incoming() -> Path:
    """Return a directory on the storage's file system if it has one, so that storing is a rename."""
    return (_root() or settings.ENVIRONMENT.data_path) / INCOMING


def probe_spool() -> None:
    """Check that there is space for an upload. Raises: `OSError`."""
    directory = _incoming()
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(bytes(CHUNK_BYTES))


def open_package(storage_key: str) -> IO[bytes]:
    """Open the package. Raises: `FileNotFoundError`."""
    return default_storage.open(storage_key, "rb")


def is_kept(storage_key: str) -> bool:
    """Return True if the package is in the storage. Raises: `StorageUnavailableError`."""
    with _disk_errors():
        return default_storage.exists(storage_key)


def delete_package(storage_key: str) -> None:
    """Delete the package, if it is there."""
    default_storage.delete(storage_key)


def stored_keys() -> Iterator[tuple[str, datetime]]:
    """Yield each key in the storage, and when it was stored."""
    try:
        directories, _ = default_storage.listdir("")
    except FileNotFoundError:
        return  # nothing was ever stored
    for directory in directories:
        if directory == INCOMING:
            continue
        for name in default_storage.listdir(directory)[1]:
            key = f"{directory}/{name}"
            yield key, default_storage.get_modified_time(key)


def remove_abandoned_spools(before: datetime) -> None:
    """Delete temporary files of killed processes that were last written before this time."""
    for path in _incoming().glob("*"):
        try:
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
                path.unlink()
        except FileNotFoundError:
            continue  # its upload has just ended
