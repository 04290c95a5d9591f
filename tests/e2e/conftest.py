"""Clusters of real processes: one that tests share, and one for each file that kills parts of it."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.fleet import Fleet, Up, remove_folder, running_fleet, short_folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e/" in item.nodeid:
            item.add_marker(pytest.mark.e2e)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(300))  # a cluster's start counts too, on a busy machine


#: True in the stash of a test that has failed.
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The report of a failed test has what its clusters have said and logged last."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    if report.failed:
        report.sections += [(str(up.folder), up.last_words()) for up in Up.started if up.folder.exists()]
    return report


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path for a data folder."""
    made = short_folder()
    yield made
    remove_folder(made)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Up]]:
    """Starts `modfleet up`; nothing of it may be left at the end."""
    started: list[Up] = []

    def start_up(*words: str, name: str = "data", environ: dict[str, str | None] | None = None) -> Up:
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
def cluster() -> Iterator[Fleet]:
    """Three nodes, without a module."""
    with running_fleet() as fleet:
        yield fleet


@pytest.fixture
def fleet(cluster: Fleet) -> Fleet:
    """The shared cluster, with nothing installed; what a test leaves on its nodes is removed before the next one."""
    cluster.clear()
    return cluster
