import gzip
import sys
import zlib
from argparse import ArgumentParser
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand

from eventstore.backup import RestoreError, restore
from eventstore.management.telling import Telling
from eventstore.store import BrokenLogError


class Command(BaseCommand):
    help = (
        "Restore a backup of the log into a database that `migrate` has made and whose log is empty, and rebuild all "
        "projections. Each hash is checked; positions, ids and times stay the same. All of it is restored, or nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="as `backup_log` has written it; - for standard input, uncompressed")
        parser.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *_: Any, file: str, json: bool, **__: Any) -> None:
        telling = Telling(self, as_json=json)
        try:
            with _opened(file) as lines:
                header = restore(lines, told=telling.count)
        except BrokenLogError as error:
            raise telling.refusal(error, position=error.position) from error
        except RestoreError as error:
            raise telling.refusal(error) from error
        except (OSError, EOFError, zlib.error) as error:
            raise telling.refusal(OSError(f"{file} cannot be read: {error}")) from error
        telling.answer(
            f"{header.head} events restored, projections rebuilt; the last hash is {header.hash}",
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
