"""Where packages are kept: any django-storages backend, under keys that are never shared."""

import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage, default_storage

CHUNK_BYTES = 1 << 20


class Spool:
    """A package on its way in: bytes to a temporary file, SHA-256 on the way. Removed when closed, unless stored."""

    def __init__(self) -> None:
        # On the storage's own file system where it has one, so that storing is a rename.
        folder = Path(default_storage.location if isinstance(default_storage, FileSystemStorage) else _data_path())
        folder = folder / ".incoming"
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, self.path = tempfile.mkstemp(dir=folder)
        self.file: IO[bytes] = os.fdopen(descriptor, "w+b")
        self.size = 0
        self._digest = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def store(self) -> str:
        """The key under which the whole package is now kept, durably."""
        key = f"{self.sha256}/{uuid.uuid4().hex}"
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.seek(0)
        return default_storage.save(key, _OnDisk(self.file, self.path))

    def close(self) -> None:
        self.file.close()
        Path(self.path).unlink(missing_ok=True)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _OnDisk(File):
    """A file that a file-system storage may rename instead of copying."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        super().__init__(file)
        self._path = path

    def temporary_file_path(self) -> str:
        return self._path


def _data_path() -> Path:
    return settings.ENVIRONMENT.data_path


def open_package(storage_key: str) -> IO[bytes]:
    """The package's bytes. Raises: `FileNotFoundError`."""
    return default_storage.open(storage_key, "rb")


def delete_package(storage_key: str) -> None:
    """No error if it is gone already."""
    default_storage.delete(storage_key)


def stored_keys() -> Iterator[tuple[str, datetime]]:
    """Each key in the storage and when it was stored."""
    folders, _ = default_storage.listdir("")
    for folder in folders:
        if folder == ".incoming":
            continue
        for name in default_storage.listdir(folder)[1]:
            key = f"{folder}/{name}"
            yield key, default_storage.get_modified_time(key)
