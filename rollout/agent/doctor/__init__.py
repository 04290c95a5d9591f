"""`modfleet agent doctor`: checks of this node's host, broker, control plane and server."""

from rollout.agent.doctor.checks import CHECKS as CHECKS
from rollout.agent.doctor.checks import Check as Check
from rollout.agent.doctor.checks import run_doctor as run_doctor
from rollout.agent.doctor.scratch import check_start_now as check_start_now
