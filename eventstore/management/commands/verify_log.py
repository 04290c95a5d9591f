from typing import Any

from django.core.management.base import BaseCommand, CommandError

from eventstore.store import BrokenLogError, verify


class Command(BaseCommand):
    help = "Check every position and hash of the log."

    def handle(self, *_: Any, **__: Any) -> None:
        try:
            count = verify()
        except BrokenLogError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{count} events, none missing, none changed")
