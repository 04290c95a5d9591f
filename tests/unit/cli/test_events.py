"""How `modfleet events` fits the log into a terminal."""

import pytest
from rich.console import Console

from modfleet.commands.events import _in_a_table, in_pairs

EVENT = {
    "position": 7,
    "recorded_at": "2026-11-26T18:00:15.700000Z",
    "actor": "alice",
    "requested_by": "alice",
    "correlation_id": "5d0c" * 8,
    "stream": "node:n1",
    "type": "node.labeled.v1",
    "data": {"node": "n1", "labels": {"zone": "a"}, "note": "two words", "empty": "", "count": 3, "none": None},
}
PAIRS = 'node=n1 labels={"zone":"a"} note="two words" empty="" count=3 none=null'


def shown(width, *, is_terminal=True):
    console = Console(width=width, legacy_windows=False)
    with console.capture() as captured:
        console.print(_in_a_table([EVENT], width=width if is_terminal else None))
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]


def test_data_is_pairs():
    assert in_pairs(EVENT["data"]) == PAIRS


@pytest.mark.parametrize("width", [100, 130, 150])
def test_an_event_is_one_line_of_a_narrow_terminal(width):
    heading, line = shown(width)
    assert "CORRELATION" not in heading
    assert "7         2026-11-26 18:00:15Z" in line
    assert "node.labeled.v1  node=n1" in line
    assert line.endswith("…") == (width < 150)
    assert len(line) <= width


def test_without_a_terminal_all_of_it_is_shown():
    heading, line = shown(400, is_terminal=False)
    assert "CORRELATION ID" in heading
    assert line.endswith(PAIRS)
