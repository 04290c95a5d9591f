"""Read models: written in the append's transaction, and the same when rebuilt."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.core.management.sql import emit_post_migrate_signal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from eventstore import Append, append, head, projections, read
from tests.ledger import Balance, Deposited, Opened

pytestmark = pytest.mark.django_db


def rows() -> dict[str, int]:
    return dict(Balance.objects.values_list("account", "cents"))


def test_an_append_of_many_events_is_one_batch_of_those_it_handles(balances):
    append(
        Append("a", 0, [Opened(owner="alice"), Deposited(cents=1), Deposited(cents=2)]),
        Append("b", 0, [Deposited(cents=4)]),
    )
    append(Append("c", 0, [Opened(owner="carol")]))

    assert balances.batches == [3]
    assert rows() == {"a": 3, "b": 4}


def test_a_projection_that_raises_lets_nothing_be_appended(balances, monkeypatch):
    def fail(_batch):
        Balance.objects.create(account="half", cents=0)
        raise ZeroDivisionError

    monkeypatch.setattr(balances, "apply", fail)

    with pytest.raises(ZeroDivisionError):
        append(Append("a", 0, [Deposited(cents=1)]))
    assert head() == 0
    assert rows() == {}


def test_a_rebuild_takes_batches(balances, monkeypatch):
    monkeypatch.setattr(projections, "REBUILD_BATCH", 3)
    for version in range(7):
        append(Append("a", version, [Deposited(cents=1)]))
    balances.batches.clear()

    assert projections.rebuild(balances) == 7
    assert balances.batches == [3, 3, 1]
    assert rows() == {"a": 7}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(some.lists(some.tuples(some.sampled_from("abc"), some.integers(-9, 9)), max_size=8))
def test_rebuilt_equals_live(balances, deposits):
    versions = dict.fromkeys("abc", 0) | {each.stream: each.version for each in read()}
    for account, cents in deposits:
        append(Append(account, versions[account], [Deposited(cents=cents)]))
        versions[account] += 1
    live = rows()

    assert projections.check(balances) == []
    projections.rebuild(balances)
    assert rows() == live


def test_the_check_names_what_was_changed_behind_the_projections_back(balances):
    append(Append("a", 0, [Deposited(cents=1)]), Append("b", 0, [Deposited(cents=2)]))
    Balance.objects.filter(account="a").update(cents=99)
    Balance.objects.filter(account="b").delete()

    differences = projections.check(balances)

    assert differences == [
        "ledger.Balance a: is {'cents': 99}, rebuilt {'cents': 1}",
        "ledger.Balance b: is missing",
    ]
    assert rows() == {"a": 99}


def test_the_command_checks_and_rebuilds(balances, capsys):
    append(Append("a", 0, [Deposited(cents=1)]))
    Balance.objects.update(cents=99)

    with pytest.raises(CommandError, match=r"balances: ledger\.Balance a: is .*99") as error:
        call_command("rebuild_projections", "--check")
    assert error.value.returncode == 1
    call_command("rebuild_projections", "balances")
    call_command("rebuild_projections", "--check")
    assert capsys.readouterr().out == "balances: rebuilt from 1 event\nbalances: a rebuild changes nothing\n"


def test_an_unknown_name_is_a_clear_error(balances):
    with pytest.raises(CommandError, match=r"no projection ledgers\. The projections are: balances"):
        call_command("rebuild_projections", "ledgers")


def migrated():
    """What `migrate` says after an upgrade."""
    said = StringIO()
    emit_post_migrate_signal(verbosity=0, interactive=False, db="default", stdout=said)
    return said.getvalue()


def rebuilt(*words):
    said = StringIO()
    call_command("rebuild_projections", *words, stdout=said)
    return said.getvalue()


def test_an_upgrade_names_what_needs_a_rebuild_until_it_is_done(balances):
    assert migrated() == ""  # the log is empty
    append(Append("a", 0, [Deposited(cents=1)]))
    assert migrated() == ""
    balances.version = 2
    Balance.objects.update(cents=99)  # as an older rule has written it

    assert projections.stale_projections() == ["balances"]
    assert "need a rebuild, and give wrong answers until then: balances. Run: rebuild_projections" in migrated()
    assert rebuilt() == "balances: rebuilt from 1 event\n"
    assert (projections.stale_projections(), migrated(), rows()) == ([], "", {"a": 1})


def test_only_what_is_stale_is_rebuilt_unless_all_is_asked_for(balances):
    migrated()
    append(Append("a", 0, [Deposited(cents=1)]))
    assert rebuilt() == "No projection needs a rebuild. Use --all to rebuild all of them.\n"
    assert rebuilt("--all") == rebuilt("balances") == "balances: rebuilt from 1 event\n"


def test_rows_of_an_unknown_version_are_stale(balances):
    append(Append("a", 0, [Deposited(cents=1)]))
    assert projections.stale_projections() == ["balances"]


def test_a_check_notes_no_version(balances):
    append(Append("a", 0, [Deposited(cents=1)]))
    projections.check(balances)
    assert projections.stale_projections() == ["balances"]


def test_an_older_process_takes_newer_rows_for_its_own(balances):
    balances.version = 2
    migrated()
    balances.version = 1
    append(Append("a", 0, [Deposited(cents=1)]))
    assert projections.stale_projections() == []
