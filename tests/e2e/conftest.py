"""Clusters of real processes: one that tests share, one for each file that kills parts of it, and what they upload."""

import itertools

import pytest

from tests.fleet import Fleet, Up, remove_folder, sample, short_folder


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/e2e/" in item.nodeid:
            item.add_marker(pytest.mark.e2e)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(300))  # a cluster's start counts too, on a busy machine


@pytest.fixture
def folder():
    """A short path for a data folder."""
    made = short_folder()
    yield made
    remove_folder(made)


@pytest.fixture
def start(folder):
    """Starts `modfleet up`; nothing of it may be left at the end."""
    started = []

    def start_up(*words, name="data", environ=None):
        started.append(Up(folder / name, *words, output=folder, environ=environ))
        return started[-1]

    yield start_up
    try:
        for up in started:
            up.end()
    finally:
        for up in started:
            up.sweep()


@pytest.fixture(scope="session")
def cluster():
    """Three nodes, without a module."""
    folder = short_folder()
    up = Up(folder / "data", "--no-sample", output=folder)
    try:
        with (fleet := Fleet(up)).api:
            yield fleet
        assert up.process.poll() is None
        assert up.end() == 0
        assert up.errors.read_text() == ""
    finally:
        up.sweep()
        remove_folder(folder)


@pytest.fixture
def fleet(cluster):
    """The shared cluster, with nothing installed; what a test leaves on its nodes is removed before the next one."""
    cluster.clear()
    return cluster


_versions = itertools.count(20000)


@pytest.fixture
def package(tmp_path):
    """Builds a package of a version of greet that no other test has: `package()` is its version and path."""

    def build(**options):
        version = next(_versions)
        return version, sample(tmp_path, version, **options)

    return build


@pytest.fixture
def uploaded(fleet, package):
    """Version of a package that has been uploaded."""

    def upload(**options):
        version, path = package(**options)
        assert fleet.upload(path).status_code == 201
        return version

    return upload
