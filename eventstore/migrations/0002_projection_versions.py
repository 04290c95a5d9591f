from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("eventstore", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="ProjectionVersion",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("version", models.IntegerField()),
            ],
        ),
    ]
