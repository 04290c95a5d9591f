"""The planted faults: each still fits the product, and names what there is."""

import re

import pytest

from modfleet import proof
from tests.fleet import ROOT
from tests.proof.power.__main__ import apply
from tests.proof.power.faults import FAULTS, FOLDER, Fault
from tests.proof.power.scenarios import SCENARIOS

#: The faults of which `make prove-power` tells if the proof catches them.
NAMES = {
    "two-step-swap",
    "third-step",
    "master-first",
    "line-at-the-end",
    "no-wait-for-the-link",
    "failover-without-equal-offset",
    "old-file-deleted-early",
    "stale-arguments",
    "upgrade-during-a-full-sync",
    "both-copies-at-once",
    "killed-between-swap-and-persist",
    "report-before-probe",
    "plain-sentinel-failover",
    "failover-without-timeout",
    "new-encoding-and-full-sync",
    "forgotten-sub-replica",
    "missing-line",
}
each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


def test_there_are_seventeen():
    assert {each.name for each in FAULTS} == NAMES
    assert {each.stem for each in FOLDER.glob("*.patch")} == NAMES
    assert len(FAULTS) == len(NAMES) == 17


@each_fault
def test_its_patch_fits_the_product(fault: Fault):
    apply(fault.patch, ROOT, is_trial=True)
    changed = re.findall(r"^\+\+\+ b/(\S+)", fault.patch.read_text(), re.MULTILINE)
    assert changed
    assert all(each.startswith("rollout/") for each in changed)


@each_fault
def test_its_rules_and_its_scenario_exist(fault: Fault):
    rules = "\n".join(each.read_text() for path in proof.__path__ for each in (ROOT / path).rglob("*.py"))
    assert fault.rules
    assert all(f'"{each}"' in rules for each in fault.rules)
    assert fault.scenario in SCENARIOS


def test_each_scenario_shows_a_fault():
    assert {each.scenario for each in FAULTS} == SCENARIOS.keys()
