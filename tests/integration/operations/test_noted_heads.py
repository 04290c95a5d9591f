"""The head of the log in the program's JSON log, from where it can be sent to another host."""

import json
import logging

import pytest

from eventstore import note_head
from rollout.logs import formatter


@pytest.mark.django_db
def test_it_is_an_object_in_the_json_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    noted = note_head(tmp_path / "log-heads")
    (record,) = [each for each in caplog.records if each.name == "eventstore.heads"]
    written = json.loads(formatter("json").format(record))
    assert (written["position"], written["hash"]) == noted
