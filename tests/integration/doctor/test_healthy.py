"""On a healthy host each line of the doctor passes, with the least rights that the docs print."""

from pathlib import Path

import pytest

from rollout.agent.doctor import CHECKS
from tests.integration.agent.conftest import SERVERS

#: The only lines that may be unknown on a healthy host, and why.
UNKNOWN = {
    "optional_rights": (
        "Not allowed, and not needed: scan, acl|list, config|get. Checks that read keys, ACLs or settings are unknown."
    )
}


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
def test_each_line_passes(site):
    site.start()
    findings = site.examine()
    assert [*findings] == [each.name for each in CHECKS]
    assert {each.check: each.message for each in findings.values() if each.status != "pass"} == UNKNOWN
