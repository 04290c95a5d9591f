"""Lines of the log: fields that are known, and no secret."""

import json
import logging
import subprocess
import sys

import pytest

from eventstore import acting_as
from rollout.logs import about, formatter, note_position, noting_position, without_secrets


def record(message="done", **extra):
    return logging.getLogger("a.logger").makeRecord("a.logger", logging.INFO, "f", 1, message, (), None, extra=extra)


def line(message="done", **extra):
    return json.loads(formatter("json").format(record(message, **extra)))


def test_it_works():
    with acting_as("user:alice", correlation_id="r1"), about(rollout="u1", node="n1"), noting_position():
        note_position(7)
        known = line()
    assert known.pop("time").endswith("Z")
    assert known == {
        "level": "INFO",
        "logger": "a.logger",
        "message": "done",
        "request_id": "r1",
        "actor": "alice",
        "rollout": "u1",
        "node": "n1",
        "position": 7,
    }


def test_what_is_not_known_is_left_out():
    assert line().keys() == {"time", "level", "logger", "message"}


def test_an_exception_is_a_field_on_the_same_line():
    made = record()
    try:
        int("redis://:hush@host")
    except ValueError:
        made.exc_info = sys.exc_info()
    text = formatter("json").format(made)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["exception"]
    assert "hush" not in text


def test_only_known_extras_are_written():
    assert "password" not in line(password="x", request=object())


def test_a_line_for_people_names_them_too():
    with about(rollout="u1"):
        assert formatter("line").format(record()).endswith("INFO a.logger [-]: done rollout=u1")


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:hush@host:6379/0",
        "redis://:hush@host",
        "Authorization: Basic aHVzaDpodXNo",
        "Bearer hush.hush-hush",
        "JWT eyJhbGciOi.hushhush.hush",
        "eyJhbGciOi.hushhush.hush",
        "whsec_hushhushhush",
        "Not Found: /v2/downloads/hush:hush",
        "GET https://s3/x?X-Amz-Signature=hush&X-Amz-Credential=hush%2Fx&b=1",
        "{'password': 'hush'}",
        "token=hush",
    ],
)
def test_a_secret_is_masked(text):
    masked = without_secrets(text)
    assert "hush" not in masked
    assert "aHVzaD" not in masked
    assert "***" in masked


def test_an_agent_writes_json_without_the_control_plane(tmp_path):
    code = (
        "import logging, sys; from rollout.agent.celery import app\n"
        "from celery.signals import setup_logging\n"
        "setup_logging.send(None, loglevel=20); logging.getLogger('x').info('hello')\n"
        "print('config.settings' in sys.modules)"
    )
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": "http://127.0.0.1:1",
        "MODFLEET_SERVER_URL": "redis://127.0.0.1:2",
        "MODFLEET_MODULES_DIR": str(tmp_path),
        "MODFLEET_JOURNAL_DIR": str(tmp_path),
        "MODFLEET_LOG_FORMAT": "json",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    assert json.loads(done.stderr)["message"] == "hello"


def test_text_from_outside_forges_no_line():
    made = record("Task modfleet.execute[a\r\n2026-11-26 ERROR forged\x1b[31m\u202e] received")
    (line,) = formatter("line").format(made).splitlines()
    assert line.endswith(": Task modfleet.execute[a\\r\\n2026-11-26 ERROR forged\\x1b[31m\\u202e] received")
    with about(rollout="u1\nforged"):
        assert formatter("line").format(record()).endswith("done rollout=u1\\nforged")
