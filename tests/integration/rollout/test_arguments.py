"""The arguments of a module are split once, by the control plane, and sent as a list; older agents get the text too."""

import pytest

from rollout.delivery import outbox
from rollout.delivery.outbox import publish_due
from rollout.messages import Command, from_json, to_json
from tests.recorded_fleet import join, upload
from tests.recorded_modules import released

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(monkeypatch):
    found = []
    monkeypatch.setattr(outbox, "_send", lambda command, _, **__: found.append(command))
    return found


@pytest.mark.parametrize(
    ("text", "args"),
    [("", ()), ("name 'Ada Lovelace' '' \"it's\" a\\ b", ("name", "Ada Lovelace", "", "it's", "a b")), ("'open", None)],
)
def test_they_are_sent_as_a_list_and_as_text(sent, text, args):
    join("n1")
    upload(arguments=text)
    released(["n1"])
    publish_due()
    (command,) = sent
    assert (command.args, command.command_line_args) == (args, text)
    assert from_json(Command, to_json(command)).args == args
