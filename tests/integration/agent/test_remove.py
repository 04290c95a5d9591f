"""Removing a module: nothing of it is left, or everything is as it was."""

from rollout.messages import Activation, Phase, Reason


def test_it_works(site, built):
    site.install(built("greet"))
    report = site.remove(built("greet"))
    assert (report.phase, report.reason) == (Phase.SUCCEEDED, None)
    assert (site.left(), site.include(), site.server.loaded()) == ([], [], set())
    assert report.inventory.modules == ()


def test_what_is_not_there_is_skipped(site, built):
    report = site.remove(built("greet"))
    assert (report.phase, report.reason) == (Phase.SKIPPED, Reason.NOT_INSTALLED)


def test_the_loaded_version_stays_when_an_older_one_goes(site, built):
    site.install(built("greet"))
    site.install(built("greet", 10001))
    assert site.remove(built("greet")).phase is Phase.SUCCEEDED
    assert site.server.loaded() == {("greet", 10001)}
    assert site.left() == ["greet", "greet/10001", "greet/10001/greet.so", "greet/10001/module.json"]
    assert len(site.include()) == 1


def test_files_that_are_not_loaded_are_removed(site, built):
    site.install(built("greet"), activation=Activation.FILES)
    assert site.remove(built("greet")).phase is Phase.SUCCEEDED
    assert site.left() == []


def test_a_refused_unload_leaves_everything(site, built):
    types = built("types", 1)
    site.install(types)
    before = site.left(), site.include()
    report = site.remove(types)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.EXPORTS_DATA_TYPES)
    assert "restart" in report.message
    assert (site.left(), site.include()) == before
    assert site.server.loaded() == {("types", 1)}


def test_nothing_is_deleted_while_the_server_is_away(site, built):
    site.install(built("greet"))
    site.server.kill()
    report = site.remove(built("greet"))
    assert report.reason is Reason.SERVER_UNREACHABLE
    assert site.folder(built("greet")).is_dir()
    assert len(site.include()) == 1


def test_a_crash_between_unload_and_delete_is_finished(site, built):
    site.install(built("greet"))
    command = site.command(built("greet"), "remove")
    site.run_and_die(command, "removing")
    site.server.call("MODULE", "UNLOAD", "greet")
    site.restart_agent()
    assert site.run(command).phase is Phase.SUCCEEDED
    assert (site.left(), site.include()) == ([], [])


def test_lines_of_others_stay_in_the_include_file(site, built):
    include = site.root / "modules/modfleet.conf"
    include.write_text("loadmodule /opt/other.so\n")
    site.install(built("greet"))
    site.remove(built("greet"))
    assert site.include() == ["loadmodule /opt/other.so"]


def test_a_removal_without_a_person_unloads_nothing(site, built):
    """The reconciler removes files that are not loaded. A person has loaded them in the meantime."""
    greet = built("greet")
    site.install(greet)
    before = site.left(), site.include()
    report = site.remove(greet, may_unload=False)
    assert (report.phase, report.reason, site.server.loaded()) == (
        Phase.FAILED,
        Reason.UNLOAD_REFUSED,
        {("greet", 10000)},
    )
    assert (site.left(), site.include()) == before
    report = site.install(greet, activation=Activation.FILES, undoes=greet.version, may_unload=False)
    assert (report.reason, site.server.loaded()) == (Reason.UNLOAD_REFUSED, {("greet", 10000)})
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


def test_a_removal_without_a_person_removes_files_that_are_not_loaded(site, built):
    site.install(built("greet"), activation=Activation.FILES)
    assert site.remove(built("greet"), may_unload=False).phase is Phase.SUCCEEDED
    assert site.left() == []
