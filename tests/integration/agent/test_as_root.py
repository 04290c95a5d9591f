"""The tests that need root and another user, in a user namespace in which the user of these tests is root."""

import os
import shlex
import sys

import pytest

from tests.integration.agent.conftest import NEEDING_ROOT, ROOT
from tests.namespace import namespace


def test_the_list_is_of_tests():
    assert all((ROOT / "tests/integration/agent" / each).is_dir() for each in NEEDING_ROOT)


if os.geteuid():  # root collects them as all others

    @pytest.mark.timeout(1200)
    def test_in_a_namespace(tmp_path):
        tests = [f"tests/integration/agent/{each}" for each in NEEDING_ROOT]
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
        words.append(f"--basetemp={tmp_path / 'root'}")
        with namespace() as host:
            done = host.run(shlex.join(words), cwd=ROOT)
        assert done.returncode == 0, done.stdout
