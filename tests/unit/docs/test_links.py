"""What README and docs point at is there."""

import re
from pathlib import Path

import pytest
from django.core.management import get_commands
from django.urls import Resolver404, resolve

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
FILE = re.compile(r"`((?:accounts|api|bench|config|deploy|docs|modfleet|rollout|tests)/[\w./@-]+)(?:::(\w+))?`")
#: Written by the programs themselves.
MADE = {"bench/results/"}


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request):
    return request.param


def test_relative_links_work(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_files_and_tests_that_are_named_exist(page):
    for name, test in FILE.findall(page.read_text()):
        path = ROOT / name
        assert path.exists() or name in MADE, name
        assert not test or f"def {test}(" in path.read_text(), f"{name}::{test}"


def test_management_commands_exist(page):
    for name in re.findall(r"(?:^manage|modfleet-manage|-m django) ([a-z_]+)", page.read_text(), re.MULTILINE):
        assert name in get_commands(), name


def test_an_installed_program_runs_the_management_commands(page):
    assert "manage.py" not in page.read_text() or page.name == "command-line.md"


def test_targets_of_make_exist(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name in re.findall(r"(?:`|^)make ([a-z-]+)(?:`|$)", page.read_text(), re.MULTILINE):
        assert name in targets, name


def test_routes_that_are_named_exist(page):
    for path in re.findall(r"(?:GET|POST|PUT|PATCH|DELETE) /(v[12]/[\w/{}.-]+)", page.read_text()):
        resolves(re.sub(r"{[^}]+}", "1", path).rstrip("."))


def resolves(path):
    try:
        resolve(f"/{path}")
    except Resolver404:
        pytest.fail(f"no route {path}")


def test_each_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text()
    for page in PAGES[1:]:
        name = str(page.relative_to(ROOT / "docs"))
        assert f"({name})" in index or name == "README.md", name
