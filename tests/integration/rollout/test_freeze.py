"""The switch for everything, on the database."""

import pytest

from rollout.models import FleetFreeze
from rollout.services.freeze import freeze_fleet, thaw_fleet
from tests.recorded_fleet import differences

pytestmark = pytest.mark.usefixtures("db")


def test_the_fleet_is_frozen_as_often_as_it_takes():
    freeze_fleet("night")
    thaw_fleet()
    freeze_fleet("storm")
    row = FleetFreeze.objects.get()
    assert (row.frozen, row.reason, row.thawed_at) == (True, "storm", None)
    assert differences() == {}
