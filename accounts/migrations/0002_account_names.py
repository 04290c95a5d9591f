import json

from django.db import migrations, models

#: The uid of names that stand in the log and belong to no account now: the log does not say whose they were.
UNKNOWN = 0


def fill(apps, schema_editor):
    names = apps.get_model("accounts", "AccountName").objects
    users = apps.get_model("accounts", "User").objects
    known = {name: uid for name, uid in users.values_list("username", "uid")}
    for name in people_in(texts(apps.get_model("eventstore", "StoredEvent"))):
        known.setdefault(name, UNKNOWN)
    names.bulk_create(names.model(name=name, uid=uid) for name, uid in known.items())


def texts(events):
    return events.objects.order_by("position").values_list("metadata", flat=True).iterator()


def people_in(metadata_texts):
    """Login names of those who have acted. In older events they stand alone, and only requests of people have an id."""
    found = set()
    for text in metadata_texts:
        metadata = json.loads(text)
        actor = metadata.get("actor", "")
        if actor.startswith("user:"):
            found.add(actor.removeprefix("user:"))
        elif metadata.get("request_id") and actor and ":" not in actor:
            found.add(actor)
    return found - {"system", "anonymous"}


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial"), ("eventstore", "0004_requests")]

    operations = [
        migrations.CreateModel(
            name="AccountName",
            fields=[
                ("name", models.CharField(max_length=150, primary_key=True, serialize=False)),
                ("uid", models.BigIntegerField()),
            ],
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
