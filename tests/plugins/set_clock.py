"""The database's clock, set to another time for one test."""

from collections.abc import Callable

import pytest
from django.db import connection

from eventstore import database


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the clock of the database differ from the real one by so many seconds."""
    original = {name: dict(getattr(database, name)) for name in ("_TIP", "_CLOCK")}

    def set_to(seconds: float) -> None:
        for name, texts in original.items():
            text = texts[connection.vendor].replace("clock_timestamp()", f"clock_timestamp() + interval '{seconds} s'")
            monkeypatch.setitem(
                getattr(database, name), connection.vendor, text.replace("'now')", f"'now', '{seconds} seconds')")
            )

    return set_to
