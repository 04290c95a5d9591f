"""Each test that a page names as `path::name` is there, and each guarantee names one."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = sorted(
    {(path, name) for page in PAGES for path, name in re.findall(r"`(tests/[\w/.]+)::(\w+)`", page.read_text())}
)
FILES = sorted({path for page in PAGES for path in re.findall(r"`(tests/[\w/.]+\.py)`", page.read_text())})


@cache
def names_in(path):
    """Names of the test functions of the file, also of those in a class."""
    tree = ast.parse((ROOT / path).read_text())
    return {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")}


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_it_is_there(path, name):
    assert name in names_in(path)


@pytest.mark.parametrize("path", FILES)
def test_the_file_has_tests(path):
    assert names_in(path)


def test_the_tests_that_pages_name_without_a_file_are_there():
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert named
    assert named <= {name for path in (ROOT / "tests").rglob("test_*.py") for name in names_in(path.relative_to(ROOT))}


def test_each_guarantee_names_a_test():
    _, *rows = (ROOT / "docs/explanation/guarantees.md").read_text().split("|---|---|---|\n")[1].splitlines()
    assert len(rows) > 10
    assert [row for row in rows if "::test_" not in row] == []
