"""The warning about stale projections that `migrate` prints after an upgrade."""

import sys
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from eventstore import projections
from eventstore.models import ProjectionVersion

#: The command that rebuilds them.
REBUILD = "rebuild_projections"


def warning() -> str:
    """Return a sentence that names the projections that need a rebuild, and the command; empty if none does."""
    if not (names := projections.stale_projections()):
        return ""
    return f"These projections need a rebuild, and give wrong answers until then: {', '.join(names)}. Run: {REBUILD}"


def report_stale_projections(using: str, stdout: Any = None, **_: Any) -> None:
    """Print the warning. A receiver of `post_migrate`; may run any number of times."""
    if using != DEFAULT_DB_ALIAS:
        return
    if ProjectionVersion._meta.db_table not in connections[using].introspection.table_names():
        return  # migrated back to before its migration
    projections.note_empty_log()
    if words := warning():
        (stdout or sys.stdout).write(f"{words}\n")
