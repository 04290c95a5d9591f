"""A Django project with nothing but the log: all that `eventstore` needs of a project.

`MODFLEET_DATABASE_URL` names the database, as in all tests: SQLite in memory without it.
"""

import os

import dj_database_url

SECRET_KEY = "toy"
INSTALLED_APPS = ["eventstore"]
USE_TZ = True

DATABASES = {"default": {**dj_database_url.parse(os.environ.get("MODFLEET_DATABASE_URL") or "sqlite://:memory:")}}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA recursive_triggers=ON;",
        "timeout": 20,
    }
else:
    # Not the name of the run that has started this one.
    DATABASES["default"]["TEST"] = {"NAME": f"test_toy_{os.getpid()}"}
