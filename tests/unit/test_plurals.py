"""A number that a person reads is followed by the right form of its noun: `1 node`, `2 nodes`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.domain.words import counted

ROOT = Path(__file__).parents[2]
PACKAGES = ("accounts", "api", "artifacts_app", "console", "eventstore", "modfleet", "modules_app", "operations", "rollout", "webhooks")  # fmt: skip
#: Numbers that are never 1, with the reason.
NEVER_ONE = {
    "_program()": "no number",
    "after.calls": "at least health.FEWEST_CALLS",
    "hours": "webhooks.deliver.DISABLED_AFTER",
    "len(commands)": "the commands of an agent",
    "len(named)": "after `> 1`",
}
PLURAL = re.compile(
    r" (more |older )?(agents|builds|calls|commands|copies|days|events|failures|hosts|hours|keys|minutes|modules|nodes|options|"
    r"packages|releases|replicas|rollouts|rows|servers|slots|tools|users|versions|waves)\b"
)


def always_plural(source: str) -> Iterator[str]:
    """Yield each number that may be 1 and has a noun in the plural. A constant is a limit, and never 1."""
    tree = ast.parse(source)
    by_number = [node for each in ast.walk(tree) if isinstance(each, ast.IfExp) for node in ast.walk(each.orelse)]
    for text in (each for each in ast.walk(tree) if isinstance(each, ast.JoinedStr) and each not in by_number):
        for value, words in zip(text.values, text.values[1:], strict=False):
            number = ast.unparse(value.value) if isinstance(value, ast.FormattedValue) else ""
            is_number = number and not number.isupper() and number not in NEVER_ONE
            if is_number and isinstance(words, ast.Constant) and (found := PLURAL.match(str(words.value))):
                yield f"line {text.lineno}: {{{number}}}{found[0]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_noun_is_always_in_the_plural(package):
    files = [each for each in (ROOT / package).rglob("*.py") if "migrations" not in each.parts]
    assert files
    assert {str(each.relative_to(ROOT)): found for each in files if (found := [*always_plural(each.read_text())])} == {}


def test_a_plural_is_found():
    assert [*always_plural('f"{count} nodes"')] == ["line 1: {count} nodes"]
    assert [*always_plural('"1 node" if count == 1 else f"{count} nodes"')] == []


@pytest.mark.parametrize(("count", "words"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes")])
def test_counted(count, words):
    assert counted(count, "node") == words
