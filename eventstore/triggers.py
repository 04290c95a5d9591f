"""Triggers that refuse any change to the log, on both databases.

They are created anew after every `migrate`: altering a table on SQLite rebuilds it and silently drops its triggers.
"""

from typing import Any

from django.db import connections

_REFUSAL = "the log is append-only"

_SQLITE = f"""
CREATE TRIGGER IF NOT EXISTS eventstore_no_update BEFORE UPDATE ON eventstore_event
BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END;
CREATE TRIGGER IF NOT EXISTS eventstore_no_delete BEFORE DELETE ON eventstore_event
BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END;
"""

_POSTGRESQL = f"""
CREATE OR REPLACE FUNCTION eventstore_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$;
CREATE OR REPLACE TRIGGER eventstore_no_change BEFORE UPDATE OR DELETE ON eventstore_event
FOR EACH ROW EXECUTE FUNCTION eventstore_refuse();
CREATE OR REPLACE TRIGGER eventstore_no_truncate BEFORE TRUNCATE ON eventstore_event
FOR EACH STATEMENT EXECUTE FUNCTION eventstore_refuse();
"""


def create_triggers(using: str, **_: Any) -> None:
    """Receiver of `post_migrate`; may run any number of times."""
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
