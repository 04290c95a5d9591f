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

from eventstore.backup import backup_lines, new_header
from eventstore.management.output import Output, events_in_words
from eventstore.verification import BrokenLogError


class Command(BaseCommand):
    help = (
        "Write the whole log to a file as JSON lines. The program may keep running. The file replaces an older one only when "
        "it is complete. Tables that are not projections are not in the log: back them up separately."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="the file to write; compressed if its name ends in .gz; - for standard output")
        parser.add_argument(
            "--json", action="store_true", help="print the result as JSON; on standard error if the file is -"
        )

    def handle(self, *_: Any, file: str, json: bool, **__: Any) -> None:
        output = Output(self, as_json=json, to_stderr=file == "-")
        header = new_header()
        try:
            _write(file, backup_lines(header, progress=output.progress))
        except BrokenLogError as error:
            raise output.failure(error, position=error.position) from error
        except OSError as error:
            raise output.failure(OSError(f"{file}: {error.strerror or error}")) from error
        output.result(
            f"{events_in_words(header.head)} in {file}; the last hash is {header.hash}",
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
    """Return a file that replaces `path` once it is complete and on disk. Only its owner may read it.

    Written here, because the log depends on no other package of a project.
    """
    temporary = NamedTemporaryFile(  # noqa: SIM115  # closed before the rename, removed after an error
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
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
