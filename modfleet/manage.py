"""`modfleet-manage`: Django's management commands, with the settings of the control plane."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from modfleet.failure import ExitCode

#: Those that need the tables as this version has them, and make none.
OF_TABLES = frozenset({"bootstrap", "dumpdata", "rebuild_projections", "restore_log"})
#: Those that need a log, and make none.
OF_A_LOG = OF_TABLES | {"backup_log", "showmigrations", "verify_log"}
#: Those that need none, and make none. Not `check`, which tries whether the data folder can be made.
TELLING = frozenset({"broker_acl", "diffsettings", "help", "makemigrations", "spectacular", "version"})
_NAME_IT = "Name the one that you mean by MODFLEET_DATA_DIR or MODFLEET_DATABASE_URL, or make a new one: modfleet-manage migrate."


def main() -> None:
    if find_spec("django") is None:
        _refuse("`modfleet-manage` needs the control plane: install modfleet[server].")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    needs_a_log = command in OF_A_LOG
    only_asks = command == "sqlmigrate" or (command == "migrate" and {"--check", "--plan"}.intersection(sys.argv))
    try:
        if needs_a_log or only_asks or command in TELLING or command.startswith("-"):
            from config import environment

            environment.make_nothing()
        from django.conf import settings

        _ = settings.INSTALLED_APPS  # reads them all
    except ValueError as error:  # `SettingsError`, already from the import
        _refuse(f"{error}.")
    if not {"-h", "--help"}.intersection(sys.argv):
        if needs_a_log or only_asks:
            _refuse_without_a_file()
        if needs_a_log:
            refuse_without_a_log()
        if command in OF_TABLES:
            refuse_unmigrated()
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


def _refuse_without_a_file() -> None:
    """SQLite would make it."""
    from django.conf import settings

    database = settings.DATABASES["default"]
    if "sqlite3" in database["ENGINE"] and not Path(database["NAME"]).exists():
        _refuse(f"There is no database at {database['NAME']}. {_NAME_IT}")


def refuse_without_a_log() -> None:
    """Exit with a sentence if the database does not answer, or has no log."""
    import django
    from django.db import Error, connection

    django.setup()
    from eventstore import StoredEvent

    try:
        with connection.cursor() as cursor:
            tables = connection.introspection.table_names(cursor)
    except Error as error:
        _refuse(f"The database cannot be read: {str(error).strip()}")
    if StoredEvent._meta.db_table not in tables:
        _refuse(f"The database {connection.settings_dict['NAME']} has no log yet. {_NAME_IT}")


def refuse_unmigrated() -> None:
    """Exit with a sentence if the database has not the tables of this version. `django.setup` has been called."""
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        _refuse("The database is of another version. Run `modfleet-manage migrate` first.")


def _refuse(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)  # noqa: T201  # the person who typed the command reads it
    sys.exit(ExitCode.USAGE)
