import os
import secrets
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import WeakPasswordError
from accounts.services import bootstrap_admin

VARIABLE = "MODFLEET_ADMIN_PASSWORD"


class Command(BaseCommand):
    help = (
        "Create the first user, an admin. If there is any user, do nothing. "
        f"The password is read from --password-file, or from {VARIABLE}. Otherwise it is generated and printed once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--password-file", metavar="FILE", help="its first line is the password; - for stdin")

    def handle(self, *args: Any, **options: Any) -> None:
        path = options["password_file"]
        given = _first_line(path) if path else os.environ.get(VARIABLE, "")
        password = given or secrets.token_urlsafe(12)
        try:
            name = bootstrap_admin(password)
        except WeakPasswordError as error:
            raise CommandError(f"The password cannot be used: {error}") from error
        if not name:
            self.stdout.write("users exist, nothing to do")
        elif given:
            self.stdout.write(f"user {name}, password from {path or VARIABLE}")
        else:
            self.stdout.write(f"user {name}, password {password}")


def _first_line(path: str) -> str:
    """Return the password. Raises: `CommandError` if there is none: an unknown password must not be set by mistake."""
    try:
        text = sys.stdin.readline() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--password-file {path} cannot be read: {error}") from error
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise CommandError(f"--password-file {path} has no password in its first line.")
    return lines[0]
