from django.db import migrations, models


def fill(apps, schema_editor):
    names = apps.get_model("accounts", "AccountName").objects
    users = apps.get_model("accounts", "User").objects
    names.bulk_create(names.model(name=name, uid=uid) for name, uid in users.values_list("username", "uid"))


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

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
