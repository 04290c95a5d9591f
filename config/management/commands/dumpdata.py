from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.management.commands import dumpdata


class Command(dumpdata.Command):
    """Run Django's dumpdata. Only the owner can read its file, which has password hashes and webhook secrets.

    The process's umask makes a new file private. An existing file is made private before it is written.
    """

    def handle(self, *app_labels: str, **options: Any) -> None:
        if options["output"]:
            with suppress(FileNotFoundError):
                Path(options["output"]).chmod(0o600)
        super().handle(*app_labels, **options)
