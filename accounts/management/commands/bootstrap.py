import os
import secrets
from typing import Any

from django.core.management.base import BaseCommand

from accounts.services import FIRST_ADMIN, bootstrap_admin

VARIABLE = "MODFLEET_ADMIN_PASSWORD"


class Command(BaseCommand):
    help = f"Make the first account, an admin; its password is {VARIABLE}, or generated and printed once."

    def handle(self, *args: Any, **options: Any) -> None:
        given = os.environ.get(VARIABLE, "")
        password = given or secrets.token_urlsafe(12)
        if not bootstrap_admin(password):
            self.stdout.write("accounts exist, nothing to do")
        elif given:
            self.stdout.write(f"user {FIRST_ADMIN}, password from {VARIABLE}")
        else:
            self.stdout.write(f"user {FIRST_ADMIN}, password {password}")
