"""A hint advises only what helps."""

import pytest

from eventstore.registry import decode
from rollout.domain.node.degraded import DEGRADED, in_full
from rollout.domain.placement.events import OperationFinished
from rollout.domain.reasons import WORDS
from rollout.messages import Phase, Reason, Report, ServerProblem, from_json, to_json

#: A node that ends for one of these was skipped or canceled, and only what failed or timed out is retried. A retry keeps
#: its generation, so that a node which knows a newer one refuses it again.
RETRIED_IN_VAIN = (
    Reason.ALREADY_INSTALLED,
    Reason.NOT_INSTALLED,
    Reason.INCOMPATIBLE_ARCH,
    Reason.INCOMPATIBLE_OS,
    Reason.INCOMPATIBLE_REDIS_VERSION,
    Reason.MISSING_DEPENDENCY,
    Reason.NODE_DRAINING,
    Reason.NODE_DECOMMISSIONED,
    Reason.NEWER_ROLLOUT,
    Reason.STALE_GENERATION,
    Reason.BUNDLED,
)


@pytest.mark.parametrize("reason", RETRIED_IN_VAIN)
def test_nobody_is_sent_to_retry_in_vain(reason):
    hint = WORDS[reason].hint.lower()
    assert "then retry" not in hint
    assert not hint.startswith("retry")


@pytest.mark.parametrize("reason", [Reason.LOAD_FAILED, Reason.PROBE_FAILED])
def test_a_module_that_does_not_work_gets_a_new_version(reason):
    """A build never changes: another one of the same version is refused."""
    assert "new version" in WORDS[reason].hint


def test_a_stored_reason_of_an_older_release_is_read():
    stored = '{"message":"","module_name":"m","node":"n","phase":"failed","reason":"named_in_acl","rollout":"r"}'
    event = decode("operation.finished.v1", stored)
    assert isinstance(event, OperationFinished)
    assert event.reason is Reason.ACL_REFERENCES_MODULE


def test_a_report_of_an_older_agent_is_read():
    report = Report(rollout="r", node="n", module_name="m", generation=1, attempt=1, phase=Phase.FAILED)
    body = to_json(report) | {"reason": "unload_refused", "cause": "named_in_acl"}
    assert from_json(Report, body).reason is Reason.ACL_REFERENCES_MODULE
    assert from_json(Report, body | {"cause": "of_tomorrow"}).reason is Reason.UNLOAD_REFUSED


@pytest.mark.parametrize(
    "reason",
    [
        Reason.ACL_REFERENCES_MODULE,
        Reason.DATA_IN_USE,
        Reason.IN_USE,
        Reason.AUX_DATA,
        Reason.AOF_REWRITE_FAILED,
    ],
)
def test_an_older_control_plane_reads_why_a_removal_was_refused(reason):
    report = Report(rollout="r", node="n", module_name="m", generation=1, attempt=1, phase=Phase.FAILED, reason=reason)
    assert to_json(report)["reason"] == "unload_refused"
    assert from_json(Report, to_json(report)).reason is reason


def test_each_problem_of_a_server_has_a_next_step():
    assert set(ServerProblem) <= DEGRADED.keys()
    for reason, words in DEGRADED.items():
        assert in_full(reason, "It is so.").endswith(f"It is so. {words.hint}")


def test_the_problem_of_a_newer_agent_has_none():
    assert (in_full("server_sad", "It is sad."), in_full("", "")) == ("server_sad: It is sad.", "")
