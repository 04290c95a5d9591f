"""The application of docs/explanation/event-sourcing-in-django.md works with a copy of `eventstore/`, without the rest of our code.

Blocks that begin with a file's name are put together to that file. Blocks of a Python session are run as doctests.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/explanation/event-sourcing-in-django.md"
BLOCK = re.compile(r"^```python\n# ([\w/]+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Where the projection is added. The page runs once without it, then once more with it.
PROJECTION = "\n## Projection\n"
SESSION = """
import tests.toy.alone
import doctest, re, sys, django
django.setup()
from django.core.management import call_command
call_command("makemigrations", "shop", verbosity=0)
call_command("migrate", verbosity=0)
text = "\\n".join(re.findall(r"^```pycon\\n(.*?)^```$", open(sys.argv[1]).read(), re.MULTILINE | re.DOTALL))
test = doctest.DocTestParser().get_doctest(text, {}, "session", sys.argv[1], 0)
found = doctest.DocTestRunner().run(test)
assert found.attempted and not found.failed, found
import eventstore, os
assert os.path.dirname(eventstore.__path__[0]) == os.getcwd()
"""


@pytest.fixture
def run(tmp_path):
    """Write the files of a part of the page, then run a Python program in their directory."""
    for name in ("eventstore", "decoding"):
        shutil.copytree(ROOT / name, tmp_path / name)

    def write_and_run(part, *words):
        (tmp_path / "shop").mkdir(exist_ok=True)
        files = {"shop/__init__.py": ""}
        for name, code in BLOCK.findall(part):
            files[name] = "\n\n".join(filter(None, (files.get(name), code)))
        for name, code in files.items():
            (tmp_path / name).write_text(code)
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
                "DJANGO_SETTINGS_MODULE": "settings",
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return write_and_run


def test_every_block_is_run():
    text = PAGE.read_text()
    sessions = re.findall(r"^```pycon$", text, re.MULTILINE)
    assert len(BLOCK.findall(text)) + len(sessions) == len(re.findall(r"^```\w+$", text, re.MULTILINE))


@pytest.mark.slow
def test_the_application_works(run, tmp_path):
    before, after = PAGE.read_text().split(PROJECTION)
    for part in (before, before + after):
        (tmp_path / "session.py").write_text(SESSION)
        (tmp_path / "sessions.md").write_text(before if part is before else after)
        run(part, "session.py", "sessions.md")
    run(before, "-m", "pytest", "-q", "-p", "no:cacheprovider", "shop/tests.py")
