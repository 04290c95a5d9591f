from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from eventstore.management.telling import Telling
from eventstore.reading import hash_at
from eventstore.store import BrokenLogError, verify


class Command(BaseCommand):
    help = (
        "Check every position and hash of the log, and the versions of each stream. Exits with 1 at the first fault. "
        "Keep the last hash elsewhere: it tells whether the end of the log was cut off."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--from",
            dest="after",
            type=int,
            default=0,
            metavar="POSITION",
            help="check only what comes after this position, up to which it was checked before",
        )
        parser.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *_: Any, after: int, json: bool, **__: Any) -> None:
        telling = Telling(self, as_json=json)
        try:
            count = verify(after=after, told=telling.count)
            last_hash = hash_at(after + count)
        except BrokenLogError as error:
            raise telling.refusal(error, position=error.position) from error
        telling.answer(f"{count} events, none missing, none changed", events=count, head=after + count, hash=last_hash)
