"""Triggers that refuse any change to the log, on both databases.

Every `migrate` creates them again: on SQLite, altering a table rebuilds it and silently drops its triggers.
"""

from typing import Any

from django.db import connections

_REFUSAL = "the log is append-only"
_FUNCTION = f"""
BEGIN RAISE EXCEPTION '{_REFUSAL}'; END """

_SQLITE = f"""
CREATE TRIGGER IF NOT EXISTS eventstore_no_update BEFORE UPDATE ON eventstore_event
BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END;
CREATE TRIGGER IF NOT EXISTS eventstore_no_delete BEFORE DELETE ON eventstore_event
BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END;
"""

_POSTGRESQL = f"""
CREATE OR REPLACE FUNCTION eventstore_refuse() RETURNS trigger LANGUAGE plpgsql AS $${_FUNCTION}$$;
CREATE OR REPLACE TRIGGER eventstore_no_change BEFORE UPDATE OR DELETE ON eventstore_event
FOR EACH ROW EXECUTE FUNCTION eventstore_refuse();
CREATE OR REPLACE TRIGGER eventstore_no_truncate BEFORE TRUNCATE ON eventstore_event
FOR EACH STATEMENT EXECUTE FUNCTION eventstore_refuse();
"""


def create_triggers(using: str, **_: Any) -> None:
    """Create the triggers. A receiver of `post_migrate`; may run any number of times."""
    connection = connections[using]
    if "eventstore_event" not in connection.introspection.table_names():
        return  # migrated back to before the first migration
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_POSTGRESQL)
            return
        for statement in _SQLITE.split("END;"):
            if statement.strip():
                cursor.execute(f"{statement} END;")


# On PostgreSQL a trigger may exist and be switched off, or call a function that refuses nothing.
_IN_PLACE = {
    "postgresql": """
        SELECT count(*) = 2 FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
        WHERE tgrelid = 'eventstore_event'::regclass AND tgenabled IN ('O', 'A') AND prosrc = %s
        AND tgname IN ('eventstore_no_change', 'eventstore_no_truncate')""",
    "sqlite": """
        SELECT count(*) = 2 FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'eventstore_event'
        AND name IN ('eventstore_no_update', 'eventstore_no_delete') AND instr(sql, %s)""",
}


def triggers_are_in_place(using: str = "default") -> bool:
    """Return True if the database refuses changes to the log now."""
    connection = connections[using]
    refusal = _FUNCTION if connection.vendor == "postgresql" else f"RAISE(ABORT, '{_REFUSAL}')"
    with connection.cursor() as cursor:
        cursor.execute(_IN_PLACE[connection.vendor], [refusal])
        (found,) = cursor.fetchone()
    return bool(found)
