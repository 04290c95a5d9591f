"""A person unloads a module from a server: the agent reports it, and drift correction leaves it so. On real servers of both
products."""

from dataclasses import replace

import pytest

from accounts.services import update_cluster_settings
from rollout.delivery import ingestion
from rollout.delivery.commands import commands_of
from rollout.messages import Reason, to_json
from rollout.models import NodeModule, Operation, Rollout
from rollout.queries.node_documents import drift_reason
from rollout.reconciliation.reconciler import reconcile
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_adopt import beat, upload
from tests.recorded_fleet import differences, know, phases, start

pytestmark = [pytest.mark.django_db, pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])]


@pytest.fixture
def greet(built):
    return built("greet")


@pytest.fixture
def unloaded(site, greet):
    """A rollout has loaded the module, and a person has unloaded it. Drift is corrected."""
    update_cluster_settings(correct_drift=True)
    upload(greet)
    know("n1")
    beat(site, hello=True)
    carry_out(site, greet)
    beat(site)
    assert row().state == "in_sync"
    site.server.call("MODULE", "UNLOAD", "greet")
    look(site)
    assert (row().drifted_at is not None, drift_reason(row())) == (True, Reason.UNLOADED_BY_HAND)


def carry_out(site, greet):
    uid = start(version=greet.version, careful={"settle_seconds": 0})
    ((_, command),) = commands_of(list(Operation.objects.filter(rollout=uid)))
    assert command.package
    path = f"/{greet.package.package_sha256}"
    site.shelf.content[path] = greet.blob
    report = site.run(replace(command, package=replace(command.package, url=site.shelf.url + path)))
    ingestion.record_reports([to_json(report)])
    assert phases(uid) == {"n1": "succeeded"}


def look(site):
    beat(site)
    reconcile()


def row():
    return NodeModule.objects.get(node="n1")


def corrections():
    return Rollout.objects.filter(origin="reconciler").count()


def test_drift_correction_leaves_it_unloaded(site, unloaded):
    look(site)
    site.restart_agent()
    beat(site, hello=True)
    reconcile()
    assert (corrections(), site.server.loaded()) == (0, set())
    assert differences() == {}


def test_after_a_restart_of_the_server_its_line_loads_it(site, unloaded, greet):
    """The person has unloaded it from the process only."""
    site.server.restart()
    look(site)
    assert site.server.loaded() == {("greet", greet.version)}
    assert (row().state, row().drifted_at, corrections()) == ("in_sync", None, 0)
    assert differences() == {}


def test_without_its_line_it_stays_unloaded_after_a_restart(site, unloaded):
    before = site.server.call("INFO", "server")["run_id"]
    site.server.include.write_text("")
    site.server.restart()
    assert site.server.call("INFO", "server")["run_id"] != before
    for _ in range(2):
        look(site)
    assert (corrections(), site.server.loaded()) == (0, set())
    assert drift_reason(row()) == Reason.UNLOADED_BY_HAND
    assert differences() == {}


def test_a_person_loads_it_again(site, unloaded, greet):
    carry_out(site, greet)
    look(site)
    assert site.server.loaded() == {("greet", greet.version)}
    assert (row().state, drift_reason(row())) == ("in_sync", None)
