"""docs/howto/doctor.md says what the doctor does."""

import re
from pathlib import Path

from rollout.agent.doctor import CHECKS
from rollout.agent.doctor.acl import EXTRAS, Extra, Level, acl_rules
from rollout.agent.doctor.checks import CHECK_SECONDS
from rollout.messages import FindingStatus

PAGE = (Path(__file__).parents[3] / "docs/howto/doctor.md").read_text()


def rows(heading, columns):
    (part,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]
    return [line for line in lines if len(line) == columns]


def test_the_table_has_each_check():
    assert rows("Checks", 2) == [[f"`{each.name}`", each.meaning] for each in CHECKS]


def test_the_tables_of_rights_are_the_printed_lines():
    found = {
        row[0].strip("`"): row[2].strip("`").replace("\\|", "|")
        for row in rows("A user for the agent at the server", 3)
    }
    assert found == {each.value: acl_rules(each) for each in Level} | {
        each.value: " ".join(EXTRAS[each]) for each in Extra
    }


def test_each_status_is_explained():
    assert [each for each in FindingStatus if f"| `{each}` |" not in PAGE] == []
    assert f"within {CHECK_SECONDS:.0f} s" in PAGE
