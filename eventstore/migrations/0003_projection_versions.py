from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("eventstore", "0002_row_format")]

    operations = [
        migrations.CreateModel(
            name="ProjectionVersion",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("version", models.IntegerField()),
            ],
        ),
    ]
