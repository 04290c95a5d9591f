"""`modfleet agent run --token-file`: the exchange without an installation, for containers."""

import os
import stat

import pytest

from modfleet.commands import agent
from modfleet.enrol.join import joined_settings
from modfleet.failure import CommandError, UsageError


@pytest.fixture
def token(control, tmp_path):
    (tmp_path / "token").write_text(control.token())
    return tmp_path / "token"


@pytest.fixture
def environ(control, tmp_path):
    return {
        "MODFLEET_NODE": "cache-0",
        "MODFLEET_CONTROL_URL": control.url,
        "MODFLEET_IDENTITY_FILE": str(tmp_path / "agent/identity.json"),
    }


def files(tmp_path):
    return sorted(each.name for each in tmp_path.glob("agent/*"))


def test_it_writes_the_identity_and_the_settings(control, environ, token, tmp_path):
    found = joined_settings(environ, token)
    assert found == {
        "MODFLEET_BROKER_URL": "rediss://node.cache-0@broker.example.com:6379/0",
        "MODFLEET_BEAT_SECONDS": "10",
        "MODFLEET_LABELS": "zone=a",
        "MODFLEET_ACCESS": "load",
    }
    assert files(tmp_path) == ["identity.env", "identity.json"]
    modes = [stat.S_IMODE((tmp_path / "agent" / each).stat().st_mode) for each in files(tmp_path)]
    assert modes == [0o600, 0o600]


def test_a_node_that_has_joined_needs_no_token(control, environ, token):
    found = joined_settings(environ, token)
    asked = len(control.asked)
    token.unlink()
    assert joined_settings(environ, token) == found
    assert len(control.asked) == asked


def test_private_authorities_are_kept(https, environ, tmp_path):
    (tmp_path / "token").write_text(https.token())
    https.answer = {"broker_ca": https.ca}
    found = joined_settings(environ | {"MODFLEET_CONTROL_URL": https.url}, tmp_path / "token")
    assert (tmp_path / "agent/control_ca.pem").read_text() == https.ca
    assert found["MODFLEET_CONTROL_CA"] == str(tmp_path / "agent/control_ca.pem")
    assert found["MODFLEET_BROKER_CA"] == str(tmp_path / "agent/broker_ca.pem")


def test_a_token_for_observers_gives_no_rights(control, environ, token):
    control.answer = {"observe": True}
    found = joined_settings(environ, token)
    assert found["MODFLEET_ACCESS"] == "observe"


def test_an_agent_may_ask_to_observe_only(control, environ, token):
    joined_settings(environ | {"MODFLEET_ACCESS": "observe"}, token)
    assert control.posted[0]["observe"] is True


def test_a_lost_answer_is_asked_for_again_with_the_same_key(control, environ, token):
    control.failures = [0]
    with pytest.raises(CommandError, match="cannot be reached"):
        joined_settings(environ, token)
    joined_settings(environ, token)
    assert len({each["public_key"] for each in control.posted}) == 1


def test_a_refusal_leaves_no_identity(control, environ, token, tmp_path):
    control.nodes["cache-0"] = "another key"
    with pytest.raises(CommandError, match=r"Another agent speaks for cache-0\. .*MODFLEET_NODE for `agent run`"):
        joined_settings(environ, token)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["MODFLEET_NODE", "MODFLEET_CONTROL_URL", "MODFLEET_IDENTITY_FILE"])
def test_it_names_what_is_missing(control, environ, token, name):
    with pytest.raises(UsageError, match=f"^--token-file needs {name}.$"):
        joined_settings(environ | {name: ""}, token)
    assert control.asked == []


def test_the_token_is_never_sent_unencrypted(environ, token):
    with pytest.raises(
        UsageError, match=r"^MODFLEET_CONTROL_URL http://cp.example.com sends the join token unencrypted"
    ):
        joined_settings(environ | {"MODFLEET_CONTROL_URL": "http://cp.example.com"}, token)


@pytest.fixture
def start(control, environ, token, monkeypatch):
    """Runs the command with the real environment; returns its exit code. Notes the worker instead of becoming it."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(agent, "_require_settings", lambda: None)
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _program, words: started.append(words))

    def run():
        try:
            agent.main(["run", "--token-file", str(token)])
        except SystemExit as ended:
            return ended.code, started
        return 0, started

    return run


def test_the_worker_starts_with_the_settings(start, monkeypatch):
    for name in ("MODFLEET_BROKER_URL", "MODFLEET_ACCESS", "MODFLEET_LABELS"):
        monkeypatch.setenv(name, "")  # restored at the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODFLEET_BEAT_SECONDS", "3")
    code, started = start()
    assert (code, started[0][1:4]) == (0, ["-m", "celery", "-A"])
    assert os.environ["MODFLEET_BROKER_URL"] == "rediss://node.cache-0@broker.example.com:6379/0"
    assert os.environ["MODFLEET_BEAT_SECONDS"] == "3"


@pytest.mark.parametrize(
    ("name", "value", "code", "sentence"),
    [
        ("MODFLEET_CONTROL_URL", "http://127.0.0.1:1", 4, "cannot be reached: Connection refused"),
        ("MODFLEET_CONTROL_URL", "cp", 2, "MODFLEET_CONTROL_URL must be the URL of the control plane"),
        ("MODFLEET_IDENTITY_FILE", "/proc/nothing/identity.json", 1, "/proc/nothing: No such file or directory."),
        ("MODFLEET_NODE", "", 2, "--token-file needs MODFLEET_NODE."),
    ],
)
def test_every_failure_is_a_sentence(start, monkeypatch, capsys, name, value, code, sentence):
    monkeypatch.setenv(name, value)
    assert start() == (code, [])
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_a_missing_token_is_a_sentence(start, token, capsys):
    token.unlink()
    assert start() == (2, [])
    assert capsys.readouterr().err == f"--token-file {token} cannot be read: No such file or directory.\n"
