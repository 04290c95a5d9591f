from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from eventstore.heads import HeadError, parse_head, read_heads
from eventstore.management.output import Output, events_in_words
from eventstore.triggers import triggers_are_in_place
from eventstore.verification import BrokenLogError, Head, hash_at, verify


class UnprotectedLogError(Exception):
    """The triggers that refuse changes to the log are missing, switched off or changed: run `migrate`."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class Command(BaseCommand):
    help = (
        "Check every position and hash of the log, the versions of each stream, and the triggers that refuse changes. "
        "Exits with 1 at the first fault. Only a head that was noted earlier, outside of the database, shows that the "
        "end of the log was cut off or that the log was replaced: pass it with --head or --heads."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--from",
            dest="after",
            type=int,
            default=0,
            metavar="POSITION",
            help="check only the events after this position; all up to it must be checked already",
        )
        parser.add_argument(
            "--head",
            dest="given",
            action="append",
            default=[],
            metavar="POSITION:HASH",
            help="check that the log has this event with this hash; may be repeated",
        )
        parser.add_argument(
            "--heads",
            type=Path,
            metavar="FILE",
            help="the same for each line of a file",
        )
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *_: Any, after: int, given: Sequence[str], heads: Path | None, json: bool, **__: Any) -> None:
        output = Output(self, as_json=json)
        try:
            noted = _heads(given, heads)
            count = verify(after=after, heads=noted, progress=output.progress)
            last_hash = hash_at(after + count)
        except BrokenLogError as error:
            raise output.failure(error, position=error.position) from error
        except (HeadError, OSError) as error:
            raise output.failure(error) from error
        if not triggers_are_in_place():
            raise output.failure(UnprotectedLogError())
        found = f"; all noted heads ({len(noted)}) found" if noted else ""
        output.result(
            f"{events_in_words(count)}, none missing, none changed{found}. Head: {after + count}:{last_hash}",
            events=count,
            head=after + count,
            hash=last_hash,
            heads=len(noted),
        )


def _heads(given: Sequence[str], file: Path | None) -> list[Head]:
    return [*(parse_head(each) for each in given), *(read_heads(file) if file else ())]
