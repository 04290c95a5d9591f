import re
import secrets
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.management.password_file import add_password_file, password_in
from rollout.delivery.broker_acl import (
    ADMINISTRATOR_USER,
    CONTROL_USER,
    OPERATOR_USER,
    administrator_line,
    control_line,
    node_line,
    operator_line,
    user_of,
)

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Command(BaseCommand):
    help = (
        "Print one line for the broker's ACL file: the user of a node, of the control plane (--control), of the relay's "
        "administration (--administrator), or of the operator (--operator). Once the file has `user default off`, only the operator may run ACL LOAD. Redis 7.0, Valkey 7.2 and "
        "newer versions can read the line. Without --password-file, the password is generated and printed to standard error."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("node", nargs="?", help="name of the node, which is MODFLEET_NODE of its agent")
        who.add_argument("--control", action="store_true", help="print the line of the control plane")
        who.add_argument(
            "--administrator",
            action="store_true",
            help="print the line of the relay, which creates the users of the nodes",
        )
        who.add_argument(
            "--operator", action="store_true", help="print the line of the person who administers the broker"
        )
        add_password_file(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        node, path = options["node"], options["password_file"]
        if node is not None and not NAME.fullmatch(node):
            raise CommandError("A node name may have letters, digits, `_`, `.` and `-`, and at most 128 characters.")
        password = password_in(path) if path else secrets.token_urlsafe(24)
        if node is not None:
            user, line = user_of(node), node_line(node, password)
        elif options["administrator"]:
            user, line = ADMINISTRATOR_USER, administrator_line(password)
        elif options["operator"]:
            user, line = OPERATOR_USER, operator_line(password)
        else:
            user, line = CONTROL_USER, control_line(password)
        self.stdout.write(line)
        if not path:
            self.stderr.write(f"user {user}, password {password}")
