"""Helpers that build sentences."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

#: How many names a sentence has before it only counts the others.
MOST_NAMED = 5
#: What a sentence shows as it is, of a text that someone else has chosen. Of another text it shows so many characters.
_PLAIN_NAME = re.compile(r"[\w.:@/+-]{1,64}")
SHOWN = 40


def in_utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def plain(word: str) -> str:
    """Return a phase or a reason without underscores."""
    return str(word).replace("_", " ")


def capitalized(word: str) -> str:
    return plain(word).capitalize()


def counted(count: int, noun: str) -> str:
    """Return `1 node`, `2 nodes`, ..."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def some_of(names: Sequence[str], count: int | None = None) -> str:
    """Return `a, b, c, d, e and 7 more`. `count`: how many there are, if `names` are only the first of them."""
    more = (len(names) if count is None else count) - len(names[:MOST_NAMED])
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def as_name(text: str) -> str:
    """Return a name that a client has chosen, for a sentence. Another text than a name is quoted, escaped and cut."""
    return text if _PLAIN_NAME.fullmatch(text) else escaped(text)


def escaped(text: str) -> str:
    """Return the beginning of a text in quotes, with only printable characters of ASCII."""
    return ascii(text[:SHOWN]) + ("..." if text[SHOWN:] else "")


def with_cause(text: str, *causes: str) -> str:
    """Return `text: cause: cause`, without the causes that are empty."""
    return ": ".join(filter(None, (text, *causes)))


def listed(texts: Sequence[str]) -> str:
    """Return the texts as one sentence."""
    return sentence("; ".join(each.rstrip(".") for each in texts))


def sentence(text: str) -> str:
    """Return the text with a full stop."""
    return f"{text}." if text and text[-1] not in ".!?" else text
