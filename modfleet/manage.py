"""Run `modfleet-manage`: Django's management commands with the settings of the control plane."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from modfleet.failure import ExitCode

#: Commands that need the tables of this version. They create none.
NEED_TABLES = frozenset({"bootstrap", "dumpdata", "rebuild_projections", "restore_log"})
#: Commands that need an existing log. They create none.
NEED_LOG = NEED_TABLES | {"backup_log", "showmigrations", "verify_log"}
#: Commands that need no database and create none. `check` is not among them: it tests whether the data
#: directory can be created.
NEED_NOTHING = frozenset({"broker_acl", "diffsettings", "help", "makemigrations", "spectacular", "version"})
_SET_OR_CREATE = (
    "Set MODFLEET_DATA_DIR or MODFLEET_DATABASE_URL to yours, or create a new database with `modfleet-manage migrate`."
)


def main() -> None:
    if find_spec("django") is None:
        _refuse("`modfleet-manage` needs the control plane. Install modfleet[server].")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    needs_a_log = command in NEED_LOG
    only_asks = command == "sqlmigrate" or (command == "migrate" and {"--check", "--plan"}.intersection(sys.argv))
    try:
        if needs_a_log or only_asks or command in NEED_NOTHING or command.startswith("-"):
            from config import environment

            environment.make_nothing()
        from django.conf import settings

        _ = settings.INSTALLED_APPS  # loads the settings
    except ValueError as error:  # `SettingsError`, which the import can raise already
        _refuse(f"{error}.")
    if not {"-h", "--help"}.intersection(sys.argv):
        if needs_a_log or only_asks:
            _refuse_without_a_file()
        if needs_a_log:
            refuse_without_a_log()
        if command in NEED_TABLES:
            refuse_unmigrated()
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


def _refuse_without_a_file() -> None:
    """Exit if the SQLite file does not exist, because SQLite would create it."""
    from django.conf import settings

    database = settings.DATABASES["default"]
    if "sqlite3" in database["ENGINE"] and not Path(database["NAME"]).exists():
        _refuse(f"There is no database at {database['NAME']}. {_SET_OR_CREATE}")


def refuse_without_a_log() -> None:
    """Exit with a message if the database does not answer, or has no log."""
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
        _refuse(f"The database {connection.settings_dict['NAME']} has no log yet. {_SET_OR_CREATE}")


def refuse_unmigrated() -> None:
    """Exit with a message if the tables are not those of this version. Call `django.setup` before."""
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        _refuse("The database is from another version. Run `modfleet-manage migrate` first.")


def _refuse(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)  # noqa: T201  # the person who typed the command reads it
    sys.exit(ExitCode.USAGE)
