"""docs/reference says what the code says."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from config.environment import Environment
from docs.generate import REFERENCE, fields_of, pages
from rollout.agent.settings import AgentSettings
from rollout.domain.strategy import Strategy

#: Their defaults are written as a word, the others as JSON.
WORDS = {"on_failure", "on_abort", "gate", "offline", "health.failed_calls"}
PAGE = (Path(__file__).parents[3] / "docs/reference/strategy.md").read_text()


@pytest.mark.parametrize("name", pages())
def test_a_page_is_current(name):
    assert (REFERENCE / name).read_text() == pages()[name](), "run `make docs`"


def flat(fields, prefix=""):
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_the_table_of_the_strategy_has_each_field_with_its_default():
    fields = PAGE.split("## Fields")[1].split("## Waves")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| [^|]* \| `([^`]+)` \|", fields, re.MULTILINE)
    said = {name: default if name in WORDS else json.loads(default) for name, default in rows}
    assert said == json.loads(json.dumps(dict(flat(asdict(Strategy())))))


def test_each_setting_has_a_meaning_and_a_default_that_is_no_code():
    rows = re.findall(
        r"^\| `(MODFLEET_\w+)` \| [^|]*(?:\\\|[^|]*)* \| ([^|]*) \| ([^|]*)", pages()["settings.md"](), re.MULTILINE
    )
    assert len(rows) == len(fields_of(Environment)) + len(fields_of(AgentSettings))
    assert [name for name, default, meaning in rows if not meaning.strip() or "(" in default] == []
