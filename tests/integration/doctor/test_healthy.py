"""On a healthy host each line of the doctor passes, with the least rights that the docs print."""

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollout.agent.doctor import CHECKS, broker, checks
from rollout.agent.doctor.acl import Extra, Level, acl_line
from rollout.agent.doctor.outcome import passed
from rollout.agent.settings import AgentSettings, settings_from
from tests.integration.agent.conftest import SERVERS
from tests.ports import free_port


@dataclass(frozen=True, slots=True, kw_only=True)
class Observing(AgentSettings):
    observe: bool = False


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
def test_each_line_passes(site):
    site.start()
    findings = site.examine()
    assert [*findings] == [each.name for each in CHECKS]
    assert [each for each in findings.values() if each.status != "pass"] == []


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
def test_a_healthy_host_leaves_nothing_in_the_logs_of_refused_commands(site):
    site.start()
    site.examine()
    with site.server.client() as server, site.broker.client() as broker:
        assert (server.acl_log(), broker.acl_log()) == ([], [])


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
def test_an_agent_that_only_observes_needs_no_more_rights(site):
    site.server.acl = [acl_line(Level.OBSERVE, "agent", "p")]
    site.server.lines[0] = ""
    site.settings_class, site.more = Observing, {"observe": True}
    site.start()
    assert [each for each in site.examine().values() if each.status != "pass"] == []


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
def test_only_a_cluster_needs_rights_to_read_it(site):
    site.server.acl = [acl_line(Level.LOAD, "agent", "p").replace(" +cluster|info +cluster|nodes", "")]
    site.start()
    assert site.examine()["server_rights"].status == "pass"


@pytest.mark.parametrize(
    ("binary", "extras"),
    [(SERVERS[0], [Extra.MIGRATIONS]), (SERVERS[1], [])],
    ids=lambda each: each.name if isinstance(each, Path) else "",
)
def test_the_printed_rights_suffice_in_a_cluster(site, extras):
    site.server.lines += ["cluster-enabled yes", f"cluster-port {free_port()}"]
    site.server.acl = [acl_line(Level.LOAD, "agent", "p", extras)]
    site.start()
    assert site.examine()["server_rights"].status == "pass"


def test_unreadable_files_are_unknown_for_a_stated_reason(site):
    """An agent that is not root often cannot read the server's configuration file."""
    site.then = lambda _: site.server.config.unlink()
    site.start()
    findings = [each for each in site.examine().values() if each.status != "pass"]
    reason = f"The configuration file {site.server.config} cannot be read: No such file or directory."
    assert [(each.check, each.status, each.message) for each in findings] == [
        ("include_line", "unknown", reason),
        ("loadmodule_owner", "unknown", reason),
        ("start_check", "warn", findings[-1].message),
    ]
    words = f"{site.server.config} cannot be read: No such file or directory."
    assert findings[-1].message.endswith(words)


def test_the_doctor_never_raises(site, monkeypatch):
    """Each check that fails in an unexpected way is unknown, and the others are still run."""
    monkeypatch.setattr(broker, "connected", None)
    site.start()
    findings = site.examine()
    assert findings["broker"].status == "unknown"
    assert findings["broker"].message == "The check failed: TypeError: 'NoneType' object is not callable."
    assert findings["modules_dir"].status == "pass"


def test_a_check_that_hangs_ends(site, monkeypatch):
    release = threading.Event()

    def hang(_):
        release.wait()
        return passed("")

    monkeypatch.setattr(checks, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(checks, "CHECKS", (checks.Check("hangs", "", hang),))
    (finding,) = checks.run_doctor(settings_from(site.environ))
    release.set()
    assert (finding.check, finding.status) == ("hangs", "unknown")
