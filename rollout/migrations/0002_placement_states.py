from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("rollout", "0001_initial")]

    operations = [
        migrations.AddField("operation", "yields", models.BooleanField(default=False, db_default=False)),
        # Only the state: processes of the former release still write this table while they are restarted.
        migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel("Placement")]),
        migrations.CreateModel(
            name="Placement",
            fields=[
                ("key", models.CharField(max_length=257, primary_key=True, serialize=False)),
                ("node", models.CharField(max_length=128)),
                ("module_name", models.CharField(max_length=128)),
                ("released_position", models.BigIntegerField(null=True)),
                ("state", models.TextField()),
                ("undone", models.BooleanField()),
            ],
            options={
                "db_table": "rollout_placement_state",
                "indexes": [
                    models.Index(fields=["node", "module_name"], name="placements_of_node"),
                    models.Index(fields=["node"], name="placements_undone", condition=models.Q(undone=True)),
                ],
            },
        ),
    ]
