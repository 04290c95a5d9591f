"""`modfleet-manage`: Django's management commands, with the settings of the control plane."""

import os
import sys
from importlib.util import find_spec

from modfleet.failure import ExitCode


def main() -> None:
    if find_spec("django") is None:
        _refuse("`modfleet-manage` needs the control plane: install modfleet[server].")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        from django.conf import settings

        _ = settings.INSTALLED_APPS  # reads them all
    except ValueError as error:  # `SettingsError`, already from the import
        _refuse(f"{error}.")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


def _refuse(sentence: str) -> None:
    print(sentence, file=sys.stderr)  # noqa: T201  # the person who typed the command reads it
    sys.exit(ExitCode.USAGE)
