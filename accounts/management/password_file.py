"""The option `--password-file` of management commands."""

import sys
from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import CommandError


def add_password_file(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--password-file", metavar="FILE", help="file whose first line is the password; - for standard input"
    )


def password_in(path: str) -> str:
    """Return the password in the file. Raises: `CommandError` if there is none, so that no unknown password is generated."""
    try:
        text = sys.stdin.readline() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--password-file {path} cannot be read: {error}") from error
    if not (password := text.split("\n")[0].rstrip("\r")):
        raise CommandError(f"--password-file {path} has no password in its first line.")
    return password
