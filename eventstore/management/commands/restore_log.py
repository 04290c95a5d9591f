import gzip
import sys
import zlib
from argparse import ArgumentParser
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand

from eventstore.backup import RestoreError, restore
from eventstore.management.output import Output, events_in_words
from eventstore.verification import BrokenLogError


class Command(BaseCommand):
    help = (
        "Restore a backup into an empty log and rebuild all projections. Run `migrate` on the new database first. Each hash "
        "is checked. Positions, ids and times stay the same. After an error nothing is restored."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="a file that `backup_log` has written; - for standard input, uncompressed")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *_: Any, file: str, json: bool, **__: Any) -> None:
        output = Output(self, as_json=json)
        try:
            with _opened(file) as lines:
                header = restore(lines, progress=output.progress)
        except BrokenLogError as error:
            raise output.failure(error, position=error.position) from error
        except RestoreError as error:
            raise output.failure(error) from error
        except (OSError, EOFError, zlib.error) as error:
            raise output.failure(OSError(f"{file} cannot be read: {error}")) from error
        output.result(
            f"{events_in_words(header.head)} restored, projections rebuilt; the last hash is {header.hash}",
            events=header.head,
            head=header.head,
            hash=header.hash,
        )


def _opened(file: str) -> AbstractContextManager[IO[bytes]]:
    if file == "-":
        return nullcontext(sys.stdin.buffer)
    if file.endswith(".gz"):
        return gzip.open(file, "rb")  # type: ignore[return-value]  # a GzipFile reads as any binary file does
    return Path(file).open("rb")
