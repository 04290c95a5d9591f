"""The settings of the log. Django's setting `EVENTSTORE` is a dictionary; every key is optional.

    EVENTSTORE = {"CHANNEL": "shop_log", "APPEND_LOCK": 7001, "BACKUP_FORMAT": "shop-log"}

Change no value while a program with the old value still runs: two programs with different locks can append at the same
time, and one of the appends fails.
"""

from dataclasses import dataclass

from django.conf import settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Conf:
    """The values in use. A field's name is the key in lower case; its value here is the default."""

    #: PostgreSQL: the channel of LISTEN and NOTIFY that announces appends. SQLite does not use it.
    channel: str = "eventstore"
    #: PostgreSQL: the number of the advisory lock for appends. Nothing else in the database may use it.
    append_lock: int = 0x65766C67
    #: The name of the backup format, without its version: the first line of a backup has `<name>-2`.
    backup_format: str = "eventstore-log"


def conf() -> Conf:
    """Return the settings. Raises: `TypeError` for an unknown key."""
    given: dict[str, str | int] = getattr(settings, "EVENTSTORE", {})
    return Conf(**{key.lower(): value for key, value in given.items()})  # type: ignore[arg-type]  # by name
