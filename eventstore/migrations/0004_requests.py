from django.db import migrations

from eventstore.reading import REQUEST


def create(apps, schema_editor):
    schema_editor.execute(
        f"CREATE INDEX events_by_request ON eventstore_event (({REQUEST[schema_editor.connection.vendor]}), position)"
    )


def drop(apps, schema_editor):
    schema_editor.execute("DROP INDEX events_by_request")


class Migration(migrations.Migration):
    """Not a Django index: SQLite uses an index on an expression only for the same text, and Django writes another one."""

    dependencies = [("eventstore", "0003_projection_versions")]

    operations = [migrations.RunPython(create, drop)]
