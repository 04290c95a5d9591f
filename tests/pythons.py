"""The fast tests on each Python that is supported and can be found here: `make test-pythons`.

Each runs in a copy of the checkout, in a folder that only its owner may enter and whose name is unlike most: what works
in one place, with one Python, need not work in another.
"""

# ruff: noqa: T201  # it speaks to the person at the terminal

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = "a b's ä"
UNWANTED = (".*cache", ".git", ".hypothesis", ".modfleet", ".venv", "build", "dist", "*.egg-info", "__pycache__")
#: After `make test-fast`, in the copy: what looks at places, and a part of what runs on PostgreSQL.
MORE = (
    [".venv/bin/pytest", "-q", "tests/e2e/test_places.py"],
    [".venv/bin/python", "tests/postgres.py", ".venv/bin/pytest", "-q", "-n", "2", "tests/integration/eventstore"],
)


def found() -> dict[tuple[int, int], Path]:
    """Version and program of each Python that the project supports, the one that runs this among them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    major, least = map(int, re.findall(r"\d+", project["requires-python"]))
    folders = [Path(each) for each in os.environ["PATH"].split(os.pathsep)]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    programs = {sys.version_info[:2]: Path(sys.executable)}
    for program in (path for folder in folders for path in folder.glob(f"python{major}.[0-9]*")):
        version = _version(program) if re.fullmatch(r"python[\d.]+", program.name) else None
        if version is not None and version >= (major, least):
            programs.setdefault(version, program)
    return dict(sorted(programs.items()))


def _version(program: Path) -> tuple[int, int] | None:
    """None where it does not run, or cannot make environments."""
    code = "import ensurepip, sys, venv; print(*sys.version_info[:2])"
    done = subprocess.run([program, "-c", code], capture_output=True, text=True)
    major, _, minor = done.stdout.strip().partition(" ")
    return (int(major), int(minor)) if done.returncode == 0 else None


def run(python: Path) -> bool:
    """Whether all passed."""
    folder = Path(tempfile.mkdtemp(prefix="py-", dir="/tmp"))  # 0700
    copy = folder / PLACE
    try:
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*UNWANTED))
        fast = ["make", f"PYTHON={python}", "test-fast"]
        return all(subprocess.run(words, cwd=copy).returncode == 0 for words in (fast, *MORE))
    finally:
        shutil.rmtree(folder)


def main() -> int:
    programs = found()
    passed = {}
    for version, program in programs.items():
        print(f"--- Python {version[0]}.{version[1]}: {program}", flush=True)
        passed[version] = run(program)
    for version, has_passed in passed.items():
        print(f"Python {version[0]}.{version[1]}: {'passed' if has_passed else 'FAILED'}")
    if len(programs) == 1:
        print("No other Python was found: install another, such as python3.13, to test with it.")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
