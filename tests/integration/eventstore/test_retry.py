"""Commands are decided anew when another writer was first."""

import pytest

from eventstore import ConcurrencyError, retry_on_conflict
from eventstore.handling import ATTEMPTS

pytestmark = pytest.mark.django_db


def failing(times: int, error: type[Exception] = ConcurrencyError):
    calls: list[int] = []

    @retry_on_conflict
    def command(answer: str) -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return answer

    return command, calls


def test_the_first_attempt_without_a_conflict_answers():
    command, calls = failing(times=ATTEMPTS - 1)

    assert command("done") == "done"
    assert len(calls) == ATTEMPTS


def test_a_conflict_that_lasts_is_raised():
    command, calls = failing(times=1000)

    with pytest.raises(ConcurrencyError):
        command("done")
    assert len(calls) == ATTEMPTS


def test_other_errors_are_raised_at_once():
    command, calls = failing(times=1, error=KeyError)

    with pytest.raises(KeyError):
        command("done")
    assert len(calls) == 1
