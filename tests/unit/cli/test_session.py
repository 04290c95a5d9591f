"""What a session prints."""

import json
from io import StringIO

from rich.console import Console

from modfleet.commands.session import Session
from modfleet.profile import Given

#: A node's text: CSI in one character, DEL, a change of direction, a line separator.
TEXT = "é \x9b31m \x7f \u202e \u2028 \U000e0001 \x1b[2J"


def test_json_has_no_character_that_a_terminal_obeys():
    session, written = Session(Given(), as_json=True), StringIO()
    session.console = Console(file=written)
    session.print_json({"message": TEXT})
    lines = written.getvalue().splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[1].startswith('  "message": "é \\u009b31m ')
    assert json.loads(written.getvalue()) == {"message": TEXT}
