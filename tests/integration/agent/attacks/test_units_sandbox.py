"""A scratch server in the sandbox of the live server's unit."""

import shutil
import tempfile
from pathlib import Path

import pytest

from rollout.agent.inspection.process import Process
from rollout.agent.scratch.confinement import confinement_of
from rollout.agent.settings import settings_from
from rollout.messages import Phase, Reason
from tests.integration.agent.attacks.conftest import NAMESPACES, said
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_scratch import ENVIRON, run_id, set_up

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])


@pytest.fixture
def in_debians_unit(monkeypatch):
    """As if Debian's unit had started the live server; its real file is read."""
    assert Path("/lib/systemd/system/redis-server.service").exists()
    monkeypatch.setattr("rollout.agent.inspection.process.unit_of", lambda *_: "redis-server.service")


def test_what_the_unit_may_not_execute_is_refused(site, built, in_debians_unit):
    before = run_id(site)
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXECUTION_FORBIDDEN)
    assert report.message.startswith("In a scratch server: ")
    assert "failed to map segment from shared object" in "".join(report.server_log)
    assert run_id(site) == before


def test_it_is_refused_without_namespaces_too(site, built, in_debians_unit, monkeypatch):
    monkeypatch.setattr("rollout.agent.scratch.confinement._namespaces_work", lambda _: False)
    report = site.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXECUTION_FORBIDDEN)
    assert "redis-server.service" in report.message


def test_what_the_unit_may_execute_is_loaded(binary, built, in_debians_unit, attacks):
    folder = Path(tempfile.mkdtemp(dir="/usr/lib"))
    try:
        module = shutil.copy(attacks, folder)
        debian = confinement_of(settings_from(ENVIRON), Process(pid=1, uid=0, unit="redis-server.service"))
        words = said(binary, debian, Path(module), "code")
        assert "code: failed" in words  # MemoryDenyWriteExecute
        assert "code: succeeded" in said(binary, NAMESPACES, Path(module), "code")
        assert "sandbox: SystemCallFilter of redis-server.service" in debian.differences
        assert not any("NoExecPaths" in each for each in debian.differences)
    finally:
        shutil.rmtree(folder)


def test_a_directory_that_the_server_sees_elsewhere(site, built, in_debians_unit, isolation):
    """The unit forbids the path that the agent sees, and allows that of the server."""
    with tempfile.TemporaryDirectory(dir="/usr/lib") as folder:
        seen = Path(folder) / "modules"
        seen.symlink_to(site.root / "modules")
        set_up(site, SERVER_MODULES_DIR=str(seen))
        report = site.install(built("greet"))
        assert (report.phase, report.message) == (Phase.SUCCEEDED, "")
        assert report.scratch.problem == ""
        assert ("sandbox: NoExecPaths of redis-server.service" in report.scratch.differences) == (
            isolation == "barrier"
        )
