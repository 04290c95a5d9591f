"""The answer about a rollout is made from its row alone."""

import json
from datetime import UTC, datetime

import msgspec

from rollout.domain.strategy import Strategy
from rollout.models import Rollout
from rollout.projections.rollout_document import document
from rollout.projections.rollout_rows import new_wave

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_order_in_which_a_database_gives_back_keys_is_not_seen():
    strategy, wave = msgspec.to_builtins(Strategy()), new_wave(3)
    row = Rollout(uid="r1", created_at=NOW, total=3, strategy=strategy, waves=[wave])
    text = json.dumps(document(row))
    row.strategy, row.waves = dict(sorted(strategy.items())), [dict(sorted(wave.items()))]
    assert json.dumps(document(row)) == text
