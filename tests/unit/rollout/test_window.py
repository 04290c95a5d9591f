"""The weekly window in which servers may be restarted."""

from datetime import UTC, datetime

import pytest

from rollout.domain.window import parse_window


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        ("Sat 01:00-05:00 Europe/Berlin", "2026-11-27T20:00", "2026-11-28T00:00"),  # a Friday
        ("Sat 01:00-05:00 Europe/Berlin", "2026-11-28T00:00", None),
        ("Sat 01:00-05:00 Europe/Berlin", "2026-11-28T03:59", None),
        ("Sat 01:00-05:00 Europe/Berlin", "2026-11-28T04:00", "2026-12-05T00:00"),
        ("Sat 01:00-05:00 Europe/Berlin", "2026-07-03T20:00", "2026-07-03T23:00"),  # summer time
        ("22:00-02:00 UTC", "2026-11-28T01:00", None),
        ("22:00-02:00 UTC", "2026-11-28T02:00", "2026-11-28T22:00"),
        ("Fri 22:00-02:00 UTC", "2026-11-28T01:00", None),
        ("Fri 22:00-02:00 UTC", "2026-11-29T01:00", "2026-12-04T22:00"),
        ("Mon-Fri 02:00-03:00 UTC", "2026-11-28T00:00", "2026-11-30T02:00"),
        ("Sat,Sun 02:00-03:00 UTC", "2026-11-27T12:00", "2026-11-28T02:00"),
        ("Sun-Mon 02:00-03:00 UTC", "2026-11-28T12:00", "2026-11-29T02:00"),
        ("00:00-00:00 UTC", "2026-11-28T12:00", None),
        ("Sun 02:30-03:30 Europe/Berlin", "2026-03-28T12:00", "2026-04-05T00:30"),  # on 29 March, 02:30 is 03:30
        ("Sun 02:00-03:00 Europe/Berlin", "2026-03-29T01:00", "2026-04-05T00:00"),
        ("Sun 02:30-03:00 Europe/Berlin", "2026-03-29T01:30", "2026-04-05T00:30"),
        ("Sun 02:30-04:00 Europe/Berlin", "2026-03-29T01:45", None),
    ],
)
def test_when_it_opens(window, now, opens):
    assert parse_window(window).opens_at(at(now)) == (at(opens) if opens else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sat",
        "01:00-05:00",
        "Xyz 01:00-05:00 UTC",
        "25:00-26:00 UTC",
        "Sat 01:00-05:00 Nowhere/Land",
        "Sat- 01:00-02:00 UTC",
        "Sat 01:00-05:00 ../etc",
    ],
)
def test_what_is_no_window(text):
    with pytest.raises(ValueError, match=r"\.$"):
        parse_window(text)
