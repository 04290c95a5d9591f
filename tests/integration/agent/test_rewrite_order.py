"""CONFIG REWRITE writes modules in the order of MODULE LIST, which differs in each process. No start may fail because of it."""

import pytest

from rollout.messages import Phase, Reason
from tests.integration.agent import test_persistence
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_persistence import beat, owned_by, rewrite
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]
site, aof, owner = test_persistence.site, test_persistence.aof, test_persistence.owner

ORDER = {"load_order": ("base", "needs")}
BOTH = {("base", 1), ("needs", 1)}


def listed(site):
    return [each["name"] for each in site.server.call("MODULE LIST") if each["name"] != "lua"]


def written(site):
    return [each.split("/")[0] for each in site.server.loads()]


def restart_until_listed(site, *names):
    """Each process of a server has a hash table of its own."""

    def restarted():
        site.server.restart()
        return [each for each in listed(site) if each in names] == [*names]

    wait_for(restarted)


def with_both_in_the_main_file(site, built):
    for name in ("base", "needs"):
        assert site.install(built(name, 1), **ORDER).phase is Phase.SUCCEEDED
    assert site.install(built("greet"), **ORDER).phase is Phase.SUCCEEDED
    restart_until_listed(site, "base", "needs")
    rewrite(site)
    beat(site)
    assert (site.include(), written(site)) == ([], listed(site))


def test_both_have_one_order(site, built):
    for name in ("base", "needs", "echoes", "options", "sized", "timer", "writes"):
        site.install(built(name, 1))
        rewrite(site)
        assert written(site) == listed(site)
    for name in ("echoes", "writes", "base"):
        site.server.call("MODULE", "UNLOAD", name)
        rewrite(site)
        assert written(site) == listed(site)


@owned_by("rewrite")
def test_modules_that_need_each_other_are_refused(site, built):
    assert site.install(built("base", 1), **ORDER).phase is Phase.SUCCEEDED
    report = site.install(built("needs", 1), **ORDER)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_FAILED)
    assert "base, needs must be loaded in this order" in report.message
    assert site.install(built("greet"), **ORDER).phase is Phase.SUCCEEDED
    site.server.restart()
    assert site.server.loaded() == {("base", 1), ("greet", 10000)}


def test_an_order_in_which_they_do_not_load_is_not_written(site, built):
    with_both_in_the_main_file(site, built)
    restart_until_listed(site, "needs", "base")
    before = site.server.file.read_text()
    for report in (site.install(built("base", 2), **ORDER), site.remove(built("greet"))):
        assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_FAILED)
        assert "in the order needs, base" in report.message
    site.restart_agent()
    assert site.remove(built("greet")).reason is Reason.PERSISTENCE_FAILED
    assert site.server.file.read_text() == before
    site.server.restart()
    assert site.server.loaded() == {*BOTH, ("greet", 10000)}


def test_whatever_the_order_becomes_the_server_starts(site, built):
    with_both_in_the_main_file(site, built)
    for version in (2, 3, 4):
        restart_until_listed(site, "base", "needs")
        site.install(built("base", version), **ORDER)
        site.server.restart()
        assert {name for name, _ in site.server.loaded()} == {"base", "needs", "greet"}


def test_lines_that_need_an_order_are_not_moved(site, built):
    for name in ("base", "needs"):
        site.install(built(name, 1), **ORDER)
    site.environ["MODFLEET_PERSISTENCE"] = "rewrite"
    site.restart_agent()
    assert (len(site.include()), site.server.loads()) == (2, [])
    site.server.restart()
    assert site.server.loaded() == BOTH
