"""The journal on disk."""

import pytest

from rollout.agent.failure import Failure
from rollout.agent.node.journal import Before, Journal
from rollout.agent.server.session import LoadedModule
from rollout.messages import Action, Activation, Command, Phase, Report


def command(generation):
    return Command(
        rollout="r",
        node="n1",
        module_name="greet",
        version=1,
        action=Action.REMOVE,
        activation=Activation.FILES,
        generation=generation,
        attempt=2,
        expires=0,
        deadline_seconds=1,
    )


def test_it_works(tmp_path):
    before = Before(content_sha256="ab", loaded=LoadedModule(name="greet", version=1, path="/p", args=("x",)))
    journal = Journal(tmp_path / "new/journal")
    begun = journal.begin(command(7), before)
    report = Report(rollout="r", node="n1", module_name="greet", generation=7, attempt=2, phase=Phase.SUCCEEDED)
    assert Journal(tmp_path / "new/journal").entry("greet") == begun
    journal.finish(begun, report)
    entry = Journal(tmp_path / "new/journal").entry("greet")
    assert entry
    assert (entry.report, entry.before, entry.order) == (report, before, (7, 2))
    assert journal.generations() == {"greet": 7}


def test_what_is_committed_stays_so(tmp_path):
    begun = Journal(tmp_path).begin(command(7), Before())
    assert not begun.committed
    committed = Journal(tmp_path).commit("greet", begun)
    assert committed.committed
    assert Journal(tmp_path).entry("greet") == committed
    assert Journal(tmp_path).commit("greet", committed) is committed


def test_what_never_happened_has_no_entry(tmp_path):
    assert Journal(tmp_path).entry("greet") is None
    assert Journal(tmp_path).generations() == {}


def test_names_of_modules_may_have_dots(tmp_path):
    journal = Journal(tmp_path)
    journal._write("a.json.b", journal.begin(command(1), Before()))
    assert journal.generations() == {"a.json.b": 1, "greet": 1}


def test_damage_is_told(tmp_path):
    (tmp_path / "greet.json").write_text("{}")
    with pytest.raises(Failure, match=r"greet\.json"):
        Journal(tmp_path).entry("greet")
