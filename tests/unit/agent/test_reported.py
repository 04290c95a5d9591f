"""What an agent reports is what the control plane takes from one."""

import re
from pathlib import Path

from rollout.messages import REPORTED_PHASES, REPORTED_REASONS, Phase, Reason

AGENT = Path(__file__).parents[3] / "rollout" / "agent"
SOURCE = "\n".join(path.read_text() for path in AGENT.glob("**/*.py"))


def test_its_reasons():
    assert {Reason[name] for name in re.findall(r"\bReason\.([A-Z_]+)", SOURCE)} == REPORTED_REASONS


def test_its_phases():
    assert {Phase[name] for name in re.findall(r"\bPhase\.([A-Z_]+)", SOURCE)} == REPORTED_PHASES
