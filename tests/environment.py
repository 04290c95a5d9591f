"""Numbers that a person may set for the tests."""

import os


def number_in(name: str, default: int) -> int:
    """Return the whole number in this environment variable. An empty one counts as not set."""
    return int(os.environ.get(name) or default)
