from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.management.commands import dumpdata


class Command(dumpdata.Command):
    """Django's, whose file nobody else may read: it holds hashes of passwords and secrets of webhooks.

    A new file is private by the process's mask; one that is written anew is made so before.
    """

    def handle(self, *app_labels: str, **options: Any) -> None:
        if options["output"]:
            with suppress(FileNotFoundError):
                Path(options["output"]).chmod(0o600)
        super().handle(*app_labels, **options)
