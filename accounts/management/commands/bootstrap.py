import os
import secrets
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import WeakPasswordError
from accounts.management.password_file import add_password_file, password_in
from accounts.services import bootstrap_admin

VARIABLE = "MODFLEET_ADMIN_PASSWORD"


class Command(BaseCommand):
    help = (
        "Create the first user, an admin. If there is a user already, do nothing. The password comes from "
        f"--password-file or {VARIABLE}; without them, it is generated and printed once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_password_file(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        path = options["password_file"]
        given = password_in(path) if path else os.environ.get(VARIABLE, "")
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
