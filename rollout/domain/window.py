"""A weekly window in which servers may be restarted, such as `Sat 01:00-05:00 Europe/Berlin`."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WORDS = re.compile(r"(?:(?P<days>[A-Za-z,-]+) +)?(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d) +(?P<zone>[A-Za-z0-9_+/-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeeklyWindow:
    """`days`: those on which it opens, Monday is 0. An `end` that is not after `start` is on the next day."""

    days: frozenset[int]
    start: time
    end: time
    zone: ZoneInfo

    def opens_at(self, now: datetime) -> datetime | None:
        """Return when it opens next, None if it is open. It does not open where a change to summer time leaves nothing of it."""
        today = now.astimezone(self.zone).date()
        for day in (today + timedelta(days=each) for each in range(-1, 15)):
            opens, closes = self._of(day)
            if day.weekday() in self.days and now < closes and opens < closes:
                return None if opens <= now else opens
        raise AssertionError("each weekday is twice among these days, and only one of them changes to summer time")

    def _of(self, day: date) -> tuple[datetime, datetime]:
        # As UTC: a difference of two local times knows no change to summer time.
        last = day + timedelta(days=self.end <= self.start)
        opens, closes = datetime.combine(day, self.start, self.zone), datetime.combine(last, self.end, self.zone)
        return opens.astimezone(UTC), closes.astimezone(UTC)


def parse_window(text: str) -> WeeklyWindow:
    """Read a window. Without days, it opens each day. Raises: `ValueError` with a sentence."""
    found = _WORDS.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            "Must be like `Sat 01:00-05:00 Europe/Berlin`, `Mon-Fri 22:00-04:00 UTC` or `02:00-04:00 UTC`."
        )
    try:
        start, end = time.fromisoformat(found["start"]), time.fromisoformat(found["end"])
    except ValueError as error:
        raise ValueError("Its times must be between 00:00 and 23:59.") from error
    try:
        zone = ZoneInfo(found["zone"])
    except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"{found['zone']} is no time zone, such as UTC or Europe/Berlin.") from error
    return WeeklyWindow(days=_days(found["days"]), start=start, end=end, zone=zone)


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for each in text.split(","):
        first, dash, last = each.partition("-")
        names = [name.capitalize() for name in (first, last if dash else first)]
        numbers = [DAYS.index(name) for name in names if name in DAYS]
        if len(numbers) != 2:
            raise ValueError(
                f"{each or 'An empty word'} is no day. Days are {', '.join(DAYS)}, such as `Sat`, `Sat,Sun` or `Mon-Fri`."
            )
        start, end = numbers
        found |= {number % 7 for number in range(start, end + 1 if end >= start else end + 8)}
    return frozenset(found)
