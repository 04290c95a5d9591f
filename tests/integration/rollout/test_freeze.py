"""The switch for everything, on the database."""

import pytest

from rollout import verbs
from rollout.models import FleetFreeze
from tests.recorded_fleet import differences

pytestmark = pytest.mark.usefixtures("db")


def test_the_fleet_is_frozen_as_often_as_it_takes():
    verbs.freeze_fleet("night")
    verbs.thaw_fleet()
    verbs.freeze_fleet("storm")
    row = FleetFreeze.objects.get()
    assert (row.frozen, row.reason, row.thawed_at) == (True, "storm", None)
    assert differences() == {}
