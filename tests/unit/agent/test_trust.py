"""Whom an agent believes, and how keys are replaced."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollout.agent.control_plane import rotation
from rollout.agent.control_plane.identity import Identity, IdentityError, read_identity, write_identity
from rollout.agent.control_plane.rotation import new_credentials, rotate
from rollout.agent.control_plane.trust import ALL_NODES, Trust
from rollout.agent.failure import Failure
from rollout.agent.module_files.fetch import _refuse_other_hosts
from rollout.agent.operations import cancel
from rollout.agent.settings import AgentSettings, settings_from
from rollout.messages import Phase, Report, Reports
from rollout.signing import ControlSecret, Envelope, Purpose, UntrustedError, key_id
from tests.waiting import wait_for

OLD, NEW, ATTACKER = ControlSecret("the former secret key"), ControlSecret("the new one"), ControlSecret("another")


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    identity = Identity(node="n1", credentials=new_credentials(), control_keys=(OLD.public,))
    write_identity(tmp_path / "identity.json", identity)
    return settings_from(
        {
            "MODFLEET_NODE": "n1",
            "MODFLEET_BROKER_URL": "redis://broker.example.com:6379/0",
            "MODFLEET_CONTROL_URL": "https://modfleet.example.com",
            "MODFLEET_SERVER_URL": "unix:///run/redis.sock",
            "MODFLEET_MODULES_DIR": str(tmp_path),
            "MODFLEET_JOURNAL_DIR": str(tmp_path),
            "MODFLEET_IDENTITY_FILE": str(tmp_path / "identity.json"),
        }
    )


def documents(*signers: ControlSecret) -> list[Any]:
    """What GET /v2/enrolment has in `trust` while these keys are valid, the first one signs commands."""
    document = {"control_keys": [each.public for each in signers], "fetch_hosts": ["s3.example.com"]}
    return [msgspec.to_builtins(each.sign(Purpose.TRUST, ALL_NODES, document)) for each in signers]


def stored(settings: AgentSettings) -> Identity:
    assert settings.identity_file is not None
    return read_identity(settings.identity_file)


def command(signer: ControlSecret) -> Any:
    return msgspec.to_builtins(signer.sign(Purpose.EXECUTE, "n1", {"a": 1}))


def test_it_signs_in_to_the_broker_as_its_node(settings):
    identity = stored(settings)
    url = f"redis://node.n1:{identity.credentials.broker_password}@broker.example.com:6379/0"
    assert Trust(settings).broker_url() == url


def test_a_new_key_is_believed_if_the_former_one_names_it(settings):
    trust = Trust(settings, learn=lambda: documents(NEW, OLD))
    assert trust.opened(command(NEW), Purpose.EXECUTE) == (Purpose.EXECUTE, {"a": 1})
    assert [each.id for each in stored(settings).control_keys] == [NEW.public.id, OLD.public.id]
    assert stored(settings).fetch_hosts == ("s3.example.com",)
    assert Trust(settings).opened(command(OLD), Purpose.EXECUTE), "both are valid"
    assert trust.identity is not None
    assert trust.identity.sign(Purpose.REPORTS, {}).peer == NEW.public.id


def test_a_key_that_the_control_plane_has_removed_is_not_believed(settings):
    write_identity(settings.identity_file, replace(stored(settings), control_keys=(NEW.public, OLD.public)))
    trust = Trust(settings, learn=lambda: documents(NEW))
    with pytest.raises(UntrustedError, match="is not known"):
        trust.opened(command(OLD), Purpose.EXECUTE)
    assert [each.id for each in stored(settings).control_keys] == [NEW.public.id]


def test_an_agent_that_gets_no_command_learns_the_keys(settings, monkeypatch):
    """The control plane hears only messages for one of its keys: the node would be refused when the former one is removed."""
    monkeypatch.setattr(cancel, "LEARN_AGAIN_SECONDS", 0.01)
    runner: Any = None
    cancels = cancel.Cancels(runner, Trust(settings, learn=lambda: documents(NEW, OLD)))
    cancels.start()
    try:
        wait_for(lambda: stored(settings).control_keys == (NEW.public, OLD.public))
    finally:
        cancels.stop()


def test_an_agent_learns_where_the_packages_are_now(settings):
    _refuse_other_hosts("https://s3.example.com/x", Trust(settings, learn=lambda: documents(OLD)))
    with pytest.raises(Failure, match="neither the control plane nor its storage"):
        _refuse_other_hosts("https://other.example.com/x", Trust(settings, learn=lambda: documents(OLD)))


def test_a_disk_that_is_full_ends_no_thread(settings, monkeypatch, caplog):
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("rollout.agent.control_plane.trust.write_identity", full)
    trust = Trust(settings, learn=lambda: documents(NEW, OLD))
    trust.learn_keys()
    assert trust.identity == stored(settings)
    assert "no space left on device" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        lambda: documents(ATTACKER),
        lambda: [documents(ATTACKER, OLD)[0]],
        lambda: [documents(NEW, OLD)[1] | {"payload": documents(ATTACKER)[0]["payload"]}],
        lambda: [msgspec.to_builtins(OLD.sign(Purpose.EXECUTE, ALL_NODES, {"control_keys": [], "fetch_hosts": []}))],
        list,
        lambda: ["x"],
        lambda: (_ for _ in ()).throw(OSError("no route")),
    ],
    ids=[
        "a stranger's",
        "without the known signature",
        "changed",
        "another purpose",
        "none",
        "no envelope",
        "no answer",
    ],
)
def test_no_other_document_is_believed(settings, answer: Callable[[], list[Any]]):
    trust = Trust(settings, learn=answer)
    with pytest.raises(UntrustedError):
        trust.opened(command(ATTACKER), Purpose.EXECUTE)
    assert [each.id for each in stored(settings).control_keys] == [OLD.public.id]


def test_unknown_keys_do_not_make_it_ask_again_and_again(settings):
    asked = []

    def learn() -> list[Any]:
        asked.append(1)
        return documents(OLD)

    trust = Trust(settings, learn=learn)
    for _ in range(20):
        with pytest.raises(UntrustedError):
            trust.opened(command(ATTACKER), Purpose.EXECUTE)
    assert len(asked) == 1


def test_reports_of_a_node_are_one_envelope(settings):
    said = Report(rollout="r", node="n1", module_name="greet", generation=1, attempt=1, phase=Phase.SUCCEEDED)
    (body,) = Trust(settings).signed(Reports(reports=(said, said)))
    assert (body["purpose"], body["node"], body["peer"]) == ("reports", "n1", OLD.public.id)


def test_a_rotation_that_was_cut_off_goes_on_with_the_same_key(settings, monkeypatch):
    """The control plane may know the new key already."""
    sent: list[Envelope] = []

    def fails(_: AgentSettings, envelope: Envelope) -> None:
        sent.append(envelope)
        raise OSError("the connection was lost")

    former = stored(settings).credentials
    monkeypatch.setattr(rotation, "add_key", fails)
    assert not rotate(Trust(settings), replaces=key_id(former.secret.public))
    assert stored(settings).credentials == former
    upcoming = stored(settings).upcoming
    assert upcoming is not None
    monkeypatch.setattr(rotation, "add_key", lambda _, envelope: sent.append(envelope))
    trust = Trust(settings)  # after a restart
    assert rotate(trust, replaces=key_id(former.secret.public))
    assert stored(settings).credentials == upcoming
    assert stored(settings).upcoming is None
    keys = {msgspec.json.decode(each.payload)["public_key"] for each in sent}
    assert keys == {upcoming.secret.public}
    assert {each.key for each in sent} == {key_id(former.secret.public)}, "signed with the current key"
    assert not rotate(trust, replaces=key_id(former.secret.public)), "a repeated request names a key that has gone"
    assert stored(settings).credentials == upcoming


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"node": "n1"}'])
def test_a_file_that_is_no_identity_is_one_sentence(settings, content):
    settings.identity_file.write_text(content)
    with pytest.raises(IdentityError, match=r"is not an identity\. Run `modfleet agent install` with a new token\.$"):
        Trust(settings)


def test_an_identity_is_readable_for_its_owner_only(settings):
    assert settings.identity_file.stat().st_mode & 0o777 == 0o600
    settings.identity_file.unlink()
    with pytest.raises(IdentityError, match="cannot be read"):
        Trust(settings)
