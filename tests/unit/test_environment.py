"""Numbers that a person may set for the tests."""

import pytest

from tests.environment import number_in


@pytest.mark.parametrize(("value", "expected"), [(None, 7), ("", 7), ("0", 0), ("12", 12)])
def test_an_empty_number_counts_as_not_set(monkeypatch, value, expected):
    monkeypatch.delenv("MODFLEET_SEED", raising=False)
    if value is not None:
        monkeypatch.setenv("MODFLEET_SEED", value)
    assert number_in("MODFLEET_SEED", 7) == expected
