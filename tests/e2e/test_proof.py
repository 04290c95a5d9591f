"""The short form of `make prove`: each topology, a few changes, and the same rules."""

from collections.abc import Iterator

import pytest

from modfleet.proof.checker import Limits
from tests.fleet import running_fleet
from tests.proof.packages import Packages, packages_of
from tests.proof.run import Trial
from tests.proof.topologies import TOPOLOGIES

#: Other tests run on this machine meanwhile: no stall is judged here, and a retry may take a while.
LIMITS = Limits(retry_seconds=30, stall_ratio=None)


@pytest.fixture(scope="module")
def packages() -> Iterator[Packages]:
    with running_fleet(nodes=0) as fleet, packages_of(fleet) as made:
        yield made


@pytest.mark.core
@pytest.mark.parametrize(
    "topology",
    [pytest.param(each, marks=() if each == "sentinel" else pytest.mark.full) for each in TOPOLOGIES],
)
def test_no_client_sees_what_must_not_be(packages, topology, tmp_path):
    trial = Trial(topology=topology, seed=len(topology), upgrades=3, seconds=120, limits=LIMITS)
    verdict = trial.prove(packages, tmp_path / topology).verdict
    assert verdict.violations == []
    assert verdict.acknowledged > 1000
    assert verdict.changes["upgrade"] >= 3
