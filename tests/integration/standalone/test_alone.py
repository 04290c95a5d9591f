"""The tests of the log pass in a project that has nothing but the log: `tests/toy`."""

import subprocess
import sys

import pytest

PLUGINS = ("tests.toy.alone", *(f"tests.plugins.{each}" for each in ("databases", "dialect", "interrupts", "ledger")))


def run(root, *words):
    return subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.dialect
@pytest.mark.timeout(600)
def test_the_tests_of_the_log_pass_without_our_other_packages(pytestconfig):
    plugins = [word for name in PLUGINS for word in ("-p", name)]
    options = ["-q", "--noconftest", "--ds=tests.toy.settings", "-p", "no:cacheprovider", "-p", "no:xdist", *plugins]
    done = run(pytestconfig.rootpath, "-m", "pytest", *options, "tests/unit/eventstore", "tests/integration/eventstore")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["rollout", "modfleet", "config.settings", "api.errors", "docs.generate"])
def test_another_package_is_refused(pytestconfig, name):
    done = run(pytestconfig.rootpath, "-c", f"import tests.toy.alone, eventstore, {name}")
    assert f"ModuleNotFoundError: {name.partition('.')[0]} is refused" in done.stderr
