"""Commands that undo what an earlier one brought: the former version is back, and the new one is gone."""

from dataclasses import replace

import pytest

from rollout.messages import Action, Activation, Phase, Reason

FILES = {"activation": Activation.FILES}
ONLY_OLD = ["greet", "greet/10000", "greet/10000/greet.so", "greet/10000/module.json"]


@pytest.fixture
def upgraded(site, built):
    """A node whose greet was upgraded from 1.0.0 to 1.0.1."""
    site.install(built("greet"))
    site.install(built("greet", 10001))
    return site


def back(site, built, **changes):
    return site.command(built("greet"), undoes=10001, **changes)


def is_back(site, built):
    assert site.server.loaded() == {("greet", 10000)}
    assert site.include() == [f"loadmodule {site.folder(built('greet'))}/greet.so"]
    return site.left() == ONLY_OLD


def test_it_works(upgraded, built):
    report = upgraded.run(back(upgraded, built))
    assert (report.phase, report.reason, report.message) == (Phase.SUCCEEDED, None, "")
    assert upgraded.phases() == [Phase.LOADING, Phase.PROBING, Phase.REMOVING, Phase.SUCCEEDED]
    assert is_back(upgraded, built)
    assert [each.version for each in report.inventory.modules] == [10000]


def test_again_is_skipped(upgraded, built):
    upgraded.run(back(upgraded, built))
    report = upgraded.run(back(upgraded, built))
    assert (report.phase, report.reason) == (Phase.SKIPPED, Reason.ALREADY_INSTALLED)


def test_it_needs_no_download(upgraded, built):
    upgraded.shelf.status = 404
    command = back(upgraded, built)
    dead = replace(command, package=replace(command.package, url="http://127.0.0.1:1/x"))
    assert upgraded.run(dead).phase is Phase.SUCCEEDED
    assert is_back(upgraded, built)


def test_a_former_version_that_is_gone_is_fetched(upgraded, built):
    upgraded.remove(built("greet"))
    assert upgraded.run(back(upgraded, built)).phase is Phase.SUCCEEDED
    assert is_back(upgraded, built)


def test_a_former_version_without_a_link_changes_nothing(upgraded, built):
    upgraded.remove(built("greet"))
    upgraded.shelf.status = 404
    before = upgraded.left(), upgraded.include()
    assert upgraded.run(back(upgraded, built)).reason is Reason.FETCH_FAILED
    assert (upgraded.left(), upgraded.include()) == before
    assert upgraded.server.loaded() == {("greet", 10001)}


def test_what_was_never_loaded_is_only_deleted(site, built):
    site.install(built("greet"))
    site.install(built("greet", 10001), **FILES)
    assert site.run(back(site, built)).phase is Phase.SUCCEEDED
    assert is_back(site, built)


def test_back_to_files_unloads_what_is_undone(site, built):
    site.install(built("greet"), **FILES)
    site.install(built("greet", 10001))
    assert site.run(back(site, built, **FILES)).phase is Phase.SUCCEEDED
    assert (site.server.loaded(), site.include(), site.left()) == (set(), [], ONLY_OLD)


def test_back_to_files_stays_when_the_unload_is_refused(site, built):
    site.install(built("types", 1), **FILES)
    site.install(built("types", 2))
    before = site.left(), site.include()
    report = site.run(site.command(built("types", 1), undoes=2, **FILES))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXPORTS_DATA_TYPES)
    assert report.message.startswith("types 1 is in place, but version 2 could not be removed: The server refuses")
    assert (site.left(), site.include()) == before
    assert site.server.loaded() == {("types", 2)}


def test_a_loaded_version_stays_when_the_unload_is_refused(site, built):
    site.install(built("types", 1), **FILES)
    site.install(built("types", 2))
    before = site.left(), site.include()
    assert site.run(site.command(built("types", 1), undoes=2)).reason is Reason.EXPORTS_DATA_TYPES
    assert (site.left(), site.include()) == before
    assert site.server.loaded() == {("types", 2)}


def test_nothing_is_deleted_while_the_server_is_away(site, built):
    site.install(built("greet"), **FILES)
    site.install(built("greet", 10001))
    site.server.kill()
    assert site.run(back(site, built, **FILES)).reason is Reason.SERVER_UNREACHABLE
    assert site.folder(built("greet", 10001)).is_dir()


def test_the_same_version_is_only_unloaded(site, built):
    site.install(built("greet"))
    report = site.install(built("greet"), undoes=10000, **FILES)
    assert report.phase is Phase.SUCCEEDED
    assert (site.server.loaded(), site.include(), site.left()) == (set(), [], ONLY_OLD)
    assert len(site.shelf.asked) == 1
    assert site.install(built("greet"), undoes=10000, **FILES).reason is Reason.ALREADY_INSTALLED


def test_the_same_version_gets_its_former_content(site, built, repack):
    site.install(repack(built("greet")))
    report = site.install(built("greet"), undoes=10000, **FILES)
    assert (report.phase, site.server.loaded(), site.left()) == (Phase.SUCCEEDED, set(), ONLY_OLD)
    assert report.inventory.modules[0].content_sha256 == built("greet").package.content_sha256


def test_the_same_version_stays_as_it_is_when_the_unload_is_refused(site, built, repack):
    site.install(repack(built("types", 1)))
    before = site.runner.node.inventory().modules
    report = site.install(built("types", 1), undoes=1, **FILES)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXPORTS_DATA_TYPES)
    assert report.inventory.modules == before
    assert site.server.loaded() == {("types", 1)}


def test_the_same_version_loaded_gets_its_former_content(site, built, repack):
    site.install(repack(built("greet")))
    report = site.install(built("greet"), undoes=10000)
    (module,) = report.inventory.modules
    assert (module.content_sha256, module.loaded) == (built("greet").package.content_sha256, True)
    assert is_back(site, built)


def test_what_was_new_is_removed(site, built):
    site.install(built("greet"))
    command = site.command(built("greet"), Action.REMOVE, undoes=10000)
    assert site.run(command).phase is Phase.SUCCEEDED
    assert (site.left(), site.include(), site.server.loaded()) == ([], [], set())
    assert site.remove(built("greet"), undoes=10000).reason is Reason.NOT_INSTALLED


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["loading", "probing", "removing", "succeeded"])
def test_a_killed_rollback_is_finished_when_repeated(upgraded, built, phase):
    command = back(upgraded, built)
    upgraded.run_and_die(command, phase)
    upgraded.restart_agent()
    assert upgraded.run(command).phase is Phase.SUCCEEDED
    assert is_back(upgraded, built)


@pytest.mark.slow
def test_a_killed_unloading_of_the_same_version_is_finished(site, built):
    site.install(built("greet"))
    command = site.command(built("greet"), undoes=10000, **FILES)
    site.run_and_die(command, "removing")
    site.server.call("MODULE", "UNLOAD", "greet")
    site.restart_agent()
    assert site.run(command).phase is Phase.SUCCEEDED
    assert (site.server.loaded(), site.include(), site.left()) == (set(), [], ONLY_OLD)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["loading", "probing"])
def test_a_killed_rollback_given_up_before_its_probe_goes_back(upgraded, built, phase):
    before = upgraded.left(), upgraded.include()
    command = back(upgraded, built)
    upgraded.run_and_die(command, phase)
    upgraded.restart_agent()
    report = upgraded.runner.cancel(command, report=upgraded.said.append)
    assert (report.phase, upgraded.server.loaded()) == (Phase.CANCELED, {("greet", 10001)})
    assert (upgraded.left(), upgraded.include()) == before


@pytest.mark.slow
def test_a_killed_rollback_given_up_after_its_probe_is_finished(upgraded, built):
    command = back(upgraded, built)
    upgraded.run_and_die(command, "removing")
    upgraded.restart_agent()
    report = upgraded.runner.cancel(command, report=upgraded.said.append)
    assert report.phase is Phase.SUCCEEDED
    assert is_back(upgraded, built)


def test_it_is_finished_when_given_up_after_its_probe(upgraded, built):
    command = back(upgraded, built)

    def hear(report):
        if report.phase is Phase.REMOVING:
            upgraded.runner.give_up(command)

    assert upgraded.runner.execute(command, report=hear).phase is Phase.SUCCEEDED
    assert is_back(upgraded, built)
