"""The certificate says what was proven, the same for people and for programs."""

import hashlib
import json
from typing import Any

import pytest

from modfleet.proof.certificate import SHOWN, Facts, Head, Run, count_retries, digests, document, markdown, write
from modfleet.proof.checker import Verdict, Violation
from modfleet.proof.history import Call, Journal, Kind, history_file

WHEN = {"made_at": "2026-11-28T02:24:54Z", "release": "0.1.0"}


def run(*violations, writes=2_000, **facts):
    verdict = Verdict(
        violations=[Violation(rule=rule, message=message) for rule, message in violations],
        acknowledged=3_000,
        writes=writes,
        reads=1_000,
        errors={"READONLY": 3},
        longest_stall=0.0123456,
        longest_restart_stall=0.5,
        control_stall=0.0,
        changes={"upgrade": 1},
        lost_by_faults=0,
        keys_lost_by_faults=[],
        seconds=60.0,
    )
    known: dict[str, Any] = {
        "topology": "1 master, 2 replicas",
        "servers": {"a": "Valkey 9.1.2", "b": "Valkey 9.1.2"},
        "modules": {"greet": ["10000", "10100"]},
        "seed": 7,
        "clients": 4,
        "retries": 3,
    }
    return Run("Staging: greet", verdict, Facts(**(known | facts)))


def test_it_works():
    page = markdown([run(log_head=Head(position=42, hash="ab" * 32), quiet_stall=0.01)], **WHEN)
    assert "**The proof succeeded: 0 violations in 3,000 acknowledged calls.**" in page
    assert "| modules | greet 10000 → 10100 |" in page
    assert "| servers | Valkey 9.1.2 (2) |" in page
    assert "| allowed errors | READONLY 3 |" in page
    assert "| longest stall without a change | 0.010 s |" in page
    assert f"| head of the log | `42:{'ab' * 32}` |" in page
    assert "Violations:" not in page


def test_a_violation():
    page = markdown([run(("lost", "The key k lacks\nthe entry | 7."))], **WHEN)
    assert "**The proof failed: 1 violation in 3,000 acknowledged calls.**" in page
    assert "- `lost`: The key k lacks the entry \\| 7." in page


def test_many_violations():
    found = [("load_error", str(number)) for number in range(SHOWN)] + [("lost", "x")] * 5
    (made,) = document([run(*found)], **WHEN)["runs"]
    assert (made["violations"], made["violations_by_rule"]) == (25, {"load_error": 20, "lost": 5})
    assert [each["message"] for each in made["first_violations"]] == [str(number) for number in range(SHOWN)]
    assert "- and 5 more: `python -m modfleet.proof x` shows all" in markdown(
        [run(*found, command="python -m modfleet.proof x")], **WHEN
    )


@pytest.mark.parametrize(
    ("runs", "is_proven"),
    [
        ([], False),
        ([run(writes=0)], False),
        ([run(), run(writes=0)], False),
        ([run(), run(("lost", "x"))], False),
        ([run(), run()], True),
    ],
)
def test_nothing_but_a_proof_is_one(runs, is_proven):
    made = document(runs, **WHEN)
    assert made["proven"] is is_proven
    assert made["acknowledged"] == 3_000 * len(runs)
    assert ("The proof succeeded" in markdown(runs, **WHEN)) is is_proven


def test_the_fields_stay():
    made = document([run()], **WHEN)
    assert sorted(made) == sorted(
        [
            "acknowledged",
            "format",
            "made_at",
            "modfleet",
            "not_proven",
            "proven",
            "reads",
            "runs",
            "seconds",
            "violations",
            "writes",
        ]
    )
    (made,) = made["runs"]
    assert sorted(made) == sorted(
        [
            "acknowledged",
            "changes",
            "clients",
            "command",
            "control_stall",
            "errors",
            "files",
            "first_violations",
            "keys_lost_by_faults",
            "log_head",
            "longest_restart_stall",
            "longest_stall",
            "lost_by_faults",
            "modules",
            "notes",
            "proven",
            "quiet_stall",
            "reads",
            "retries",
            "seconds",
            "seed",
            "servers",
            "title",
            "topology",
            "violations",
            "violations_by_rule",
            "writes",
        ]
    )
    assert made["longest_stall"] == 0.012


def test_the_files_are_named_by_their_content(tmp_path):
    with Journal(history_file(tmp_path, "a")) as journal:
        for attempt in (1, 2):
            call = Call(
                client="a", called_at=1, answered_at=2, kind=Kind.ADD, module="m", key="k", entry=1, attempt=attempt
            )
            journal.append(call)
    made = write(tmp_path, [run(files=digests(tmp_path), retries=count_retries(tmp_path))], **WHEN)
    digest = hashlib.sha256((tmp_path / "history-a.ndjson").read_bytes()).hexdigest()
    assert made == json.loads((tmp_path / "certificate.json").read_text())
    assert made["runs"][0]["files"] == {"history-a.ndjson": digest}
    assert made["runs"][0]["retries"] == 1
    assert f"{digest}  history-a.ndjson" in (tmp_path / "certificate.md").read_text()
