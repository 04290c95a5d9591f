"""A hint advises only what helps."""

import pytest

from rollout.domain.reasons import WORDS
from rollout.messages import Reason

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
