"""Helpers that build sentences."""

from collections.abc import Sequence
from datetime import UTC, datetime


def in_utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def phase_name(phase: str) -> str:
    return phase.replace("_", " ").capitalize()


def listed(texts: Sequence[str]) -> str:
    """Return the texts as one sentence."""
    return sentence("; ".join(each.rstrip(".") for each in texts))


def sentence(text: str) -> str:
    """Return the text with a full stop."""
    return f"{text}." if text and text[-1] not in ".!?" else text
