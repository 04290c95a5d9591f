import gzip
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from django.core.management.base import BaseCommand

from eventstore.backup import backup_lines, header_of_now
from eventstore.management.telling import Telling
from eventstore.store import BrokenLogError


class Command(BaseCommand):
    help = (
        "Write the whole log to a file, as JSON lines, while everything goes on. The file is there whole or not at all. "
        "Accounts, tokens, cluster settings and webhooks are not in the log: see docs/howto/backup-and-restore.md."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="compressed if its name ends in .gz; - for standard output")
        parser.add_argument("--json", action="store_true", help="answer in JSON; to standard error if the file is -")

    def handle(self, *_: Any, file: str, json: bool, **__: Any) -> None:
        telling = Telling(self, as_json=json, to_stderr=file == "-")
        header = header_of_now()
        try:
            _write(file, backup_lines(header, told=telling.count))
        except BrokenLogError as error:
            raise telling.refusal(error, position=error.position) from error
        except OSError as error:
            raise telling.refusal(OSError(f"{file}: {error.strerror or error}")) from error
        telling.answer(
            f"{header.head} events in {file}; the last hash is {header.hash}",
            file=file,
            events=header.head,
            head=header.head,
            hash=header.hash,
        )


def _write(file: str, lines: Iterable[bytes]) -> None:
    if file == "-":
        sys.stdout.buffer.writelines(lines)
        sys.stdout.buffer.flush()
        return
    with _replacing(Path(file).absolute()) as raw:
        if file.endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
                packed.writelines(lines)
        else:
            raw.writelines(lines)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` once it is whole and on the disk; readable by its owner only."""
    temporary = NamedTemporaryFile(  # noqa: SIM115  # it is closed before it is renamed, and removed if it is not
        dir=path.parent, prefix=f".{path.name}.", delete=False
    )
    try:
        with temporary:
            yield temporary
            temporary.flush()
            os.fsync(temporary.fileno())
        Path(temporary.name).replace(path)
    except BaseException:
        Path(temporary.name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
