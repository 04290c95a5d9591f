"""The sample domain of `tests/ledger.py`, known to the log for one test."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ledger import Balances


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its events are registered, no projection is. Actors without a kind are people."""
    from eventstore import projections, registry
    from tests.ledger import actor_with_kind, register_events

    for name in ("_classes", "_names", "_upcasters"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.setattr(registry, "_actor_upcasters", [actor_with_kind])
    monkeypatch.setattr(projections, "_projections", {})
    register_events()


@pytest.fixture
def balances(ledger: None, db: None) -> "Balances":
    """Its projection, registered, with an empty table."""
    from eventstore import projections
    from tests.ledger import Balances, create_table

    create_table()
    projections.register_projection(made := Balances())
    return made
