"""The options of a module: what was set at run time survives an upgrade, and lines that set one stop what would break a start."""

import pytest

from rollout.agent.doctor import check_start_now
from rollout.agent.doctor.acl import Extra, Level, acl_rules
from rollout.messages import Phase, Reason, WouldStart
from tests.integration.agent import test_persistence
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_persistence import owned_by, rewrite
from tests.integration.agent.test_removal import allow

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]
site, aof, owner = test_persistence.site, test_persistence.aof, test_persistence.owner


def depth(site):
    return site.server.call("CONFIG", "GET", "options.depth")[1]


def set_depth(site, value):
    site.server.call("CONFIG", "SET", "options.depth", value)


def test_an_option_survives_an_upgrade(site, built):
    site.install(built("options", 1))
    set_depth(site, 7)
    report = site.install(built("options", 2))
    assert (report.phase, report.message, depth(site)) == (Phase.SUCCEEDED, "", "7")
    site.server.restart()
    assert depth(site) == "5", "a value that nobody has persisted is not persisted"


@pytest.mark.parametrize("version", [3, 4])
def test_a_refused_option_is_reported(site, built, version):
    site.install(built("options", 1))
    set_depth(site, 7)
    report = site.install(built("options", version))
    assert report.phase is Phase.SUCCEEDED
    assert "options.depth=7" in report.message


@pytest.mark.parametrize(
    ("module", "reason"), [("greet", Reason.PROBE_FAILED), ("refuses", Reason.LOAD_FAILED)], ids=["probe", "load"]
)
@pytest.mark.parametrize("scratch", ["off"])
def test_a_failed_upgrade_leaves_the_options(site, built, repack, module, reason):
    site.install(built("options", 1))
    set_depth(site, 7)
    report = site.install(repack(built("options", 1), version=9, module=built(module)))
    assert (report.phase, report.reason, depth(site)) == (Phase.FAILED, reason, "7")


def test_without_the_right_the_options_are_unknown(site, built):
    site.install(built("options", 1))
    site.server.call("ACL", "SETUSER", "default", "-config|get")
    report = site.install(built("options", 2))
    assert report.phase is Phase.SUCCEEDED
    assert "not known" in report.message


# --- Without a person who has accepted the loss


def upgraded(site, built, version=3, **changes):
    return site.install(built("options", version), keep_options=True, **changes)


def test_an_option_that_the_version_does_not_have_stops_the_upgrade(site, built):
    site.install(built("options", 1))
    set_depth(site, 7)
    report = upgraded(site, built)
    assert (report.phase, report.reason, depth(site)) == (Phase.FAILED, Reason.OPTIONS_LOST, "7")
    words = "options 3 does not have these options of the server: options.depth=7. Retry to go on without them."
    assert report.message == words
    assert site.server.loaded() == {("options", 1)}
    assert site.install(built("options", 3)).phase is Phase.SUCCEEDED


@pytest.mark.parametrize(("listed", "phase"), [((), Phase.FAILED), (("options.depth",), Phase.SUCCEEDED)])
def test_only_the_losses_that_a_plan_has_listed_are_accepted(site, built, listed, phase):
    """Another node has said that the new version has this option."""
    site.install(built("options", 1))
    set_depth(site, 7)
    assert site.install(built("options", 3), accepted_losses=listed, options=("options.depth",)).phase is phase


def test_options_that_survive_do_not_stop_it(site, built):
    site.install(built("options", 1))
    set_depth(site, 7)
    assert (upgraded(site, built, 2).phase, depth(site)) == (Phase.SUCCEEDED, "7")


def test_options_that_the_agent_may_not_read_stop_it(site, built):
    site.install(built("options", 1))
    site.install(built("greet"))
    set_depth(site, 7)
    site.server.call("ACL", "SETUSER", "default", "-config|get")
    report = upgraded(site, built, 2)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.OPTIONS_LOST)
    assert "may not call CONFIG GET" in report.message
    assert "--also options" in report.message
    assert site.server.loaded() == {("options", 1), ("greet", 10000)}
    report = site.install(built("greet", 10001), keep_options=True)
    assert report.phase is Phase.SUCCEEDED, "a scratch server has seen that it has no options"


def test_options_that_the_agent_may_not_set_stop_it(site, built):
    site.install(built("options", 1))
    set_depth(site, 7)
    site.server.call("ACL", "SETUSER", "default", "-config|set")
    report = upgraded(site, built, 2)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.OPTIONS_LOST)
    assert "may not call CONFIG SET" in report.message
    assert depth(site) == "7"


@pytest.mark.parametrize(
    ("options", "phase"), [(None, Phase.FAILED), ((), Phase.FAILED), (("options.depth",), Phase.SUCCEEDED)]
)
@pytest.mark.parametrize("scratch", ["off"])
def test_a_node_without_scratch_servers_relies_on_others(site, built, options, phase):
    site.install(built("options", 1))
    report = upgraded(site, built, 2, options=options)
    assert report.phase is phase
    assert report.reason is (None if phase is Phase.SUCCEEDED else Reason.OPTIONS_LOST)


@pytest.mark.parametrize(("extras", "phase"), [((), Phase.FAILED), ((Extra.OPTIONS,), Phase.SUCCEEDED)])
def test_with_the_documented_rights(site, built, extras, phase):
    site.install(built("options", 1))
    set_depth(site, 7)
    allow(site, *acl_rules(Level.LOAD, extras).split())
    report = upgraded(site, built, 2)
    assert (report.phase, depth(site)) == (phase, "7")
    assert report.reason is (None if extras else Reason.OPTIONS_LOST)


# --- Lines


@owned_by("rewrite")
def test_rewrite_keeps_them_over_a_restart(site, built):
    site.install(built("options", 1))
    set_depth(site, 7)
    site.install(built("options", 2))
    site.server.restart()
    assert depth(site) == "7"
    assert site.remove(built("options", 2)).phase is Phase.SUCCEEDED
    lines = site.server.file.read_text().splitlines()
    assert [each for each in lines if each.startswith("options.")] == []
    assert check_start_now(site.runner.node.settings).result is WouldStart.YES
    site.server.restart()
    assert site.server.loaded() == set()


def test_a_line_that_sets_an_option_stops_the_removal(site, built):
    site.install(built("options", 1))
    with site.server.file.open("a") as file:
        file.write("options.depth 7\n")
    report = site.remove(built("options", 1))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_CONFLICT)
    assert "options.depth" in report.message
    site.server.restart()
    assert depth(site) == "7"


def test_a_line_that_the_new_version_does_not_know_stops_the_upgrade(site, built):
    site.install(built("options", 1))
    with site.server.file.open("a") as file:
        file.write("options.depth 7\n")
    report = site.install(built("options", 3))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_CONFLICT)
    site.server.restart()
    assert depth(site) == "7"
    assert site.install(built("options", 2)).phase is Phase.SUCCEEDED
    site.server.restart()
    assert site.server.loaded() == {("options", 2)}


def test_rewritten_options_do_not_stop_a_removal(site, built):
    site.install(built("options", 1))
    set_depth(site, 7)
    rewrite(site)
    assert site.remove(built("options", 1)).phase is Phase.SUCCEEDED
    site.server.restart()
    assert site.server.loaded() == set()
