"""The exchange of a join token for a node's identity; and `modfleet agent run --token-file`, which is only this exchange."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from durable import make_directory, write_file
from modfleet.enrol import exchange, join_token
from modfleet.enrol.exchange import ControlPlane, Enrolment
from modfleet.enrol.join_token import JoinToken
from modfleet.enrol.layout import setting_line, settings_in
from modfleet.enrol.rights import LOAD, OBSERVE
from modfleet.failure import UsageError
from rollout.agent.control_plane.identity import Credentials, Identity, IdentityError, read_identity, write_identity
from rollout.signing import NodeSecret, to_text

#: What a node needs before it joins.
NEEDED = ("MODFLEET_NODE", "MODFLEET_CONTROL_URL", "MODFLEET_IDENTITY_FILE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a run that enrols the node knows."""

    control: ControlPlane
    enrolled: Enrolment
    credentials: Credentials


def joined_settings(environ: Mapping[str, str], token_file: Path) -> dict[str, str]:
    """Return the settings that the control plane gave to this node. If the node has no identity, enrol it first.

    The settings and the CAs are next to the identity, whose file MODFLEET_IDENTITY_FILE names. The token is read only if
    the node has not joined. Raises: `CommandError`, `OSError`.
    """
    if missing := [each for each in NEEDED if not environ.get(each)]:
        raise UsageError(f"--token-file needs {', '.join(missing)}.")
    identity = Path(environ["MODFLEET_IDENTITY_FILE"])
    settings = identity.with_suffix(".env")
    if not identity.exists() or not settings.exists():
        _join(environ, token_file, identity, settings)
    return settings_in(settings)


def _join(environ: Mapping[str, str], token_file: Path, identity: Path, settings: Path) -> None:
    """Write the settings last: until then, the next run repeats the exchange with the same key."""
    url = exchange.check_url(environ["MODFLEET_CONTROL_URL"], "MODFLEET_CONTROL_URL")
    token = join_token.read(None, token_file)
    assert token is not None  # noqa: S101 - a file is given
    control = exchange.meet(url, token)
    make_directory(identity.parent, mode=0o700)
    observes = environ.get("MODFLEET_ACCESS") == OBSERVE
    joined = exchanged(control, token, environ["MODFLEET_NODE"], identity, observe=observes)
    control_ca, broker_ca = (identity.with_name(each) for each in ("control_ca.pem", "broker_ca.pem"))
    for path, content in ((control_ca, control.ca), (broker_ca, joined.enrolled.broker_ca)):
        if content:
            write_file(path, content.encode(), mode=0o644)
    given = given_settings(joined, control_ca=str(control_ca), broker_ca=str(broker_ca))
    given["MODFLEET_ACCESS"] = OBSERVE if joined.enrolled.observe else LOAD
    lines = (setting_line(name, value) for name, value in given.items())
    write_file(settings, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)


def exchanged(control: ControlPlane, token: JoinToken, node: str, path: Path, *, observe: bool) -> Joined:
    """Exchange the token, and write the identity to `path`. Its directory exists.

    The key is written first: after a crash, the next run repeats the exchange with the same key. Raises:
    `exchange.UnreachableError`; `UsageError` or `exchange.RefusedError`, and then no new identity is left behind.
    """
    is_new = not path.exists()
    identity = _new_identity(node, control) if is_new else usable_identity(path)
    if control.keys[0] not in identity.control_keys:
        raise UsageError(
            f"{path} is for another control plane. Delete the file, or uninstall the agent of {node}, first."
        )
    write_identity(path, identity)
    try:
        enrolled = exchange.enrol(control, token, node, identity.credentials, observe=observe)
    except exchange.RefusedError:
        if is_new:
            path.unlink()
        raise
    identity = replace(identity, control_keys=enrolled.control_keys, fetch_hosts=enrolled.fetch_hosts)
    write_identity(path, identity)
    return Joined(control=control, enrolled=enrolled, credentials=identity.credentials)


def given_settings(joined: Joined, *, control_ca: str, broker_ca: str) -> dict[str, str]:
    """Return the settings that the control plane gives to its nodes. `control_ca` and `broker_ca` are paths for its CAs."""
    enrolled = joined.enrolled
    given = {
        "MODFLEET_BROKER_URL": enrolled.broker_url,
        "MODFLEET_BEAT_SECONDS": f"{enrolled.heartbeat_seconds:g}",
    }
    if joined.control.ca:
        given["MODFLEET_CONTROL_CA"] = control_ca
    if enrolled.broker_ca:
        given["MODFLEET_BROKER_CA"] = broker_ca
    labels = (f"{name}={value}" for name, value in enrolled.labels.items())
    # The control plane knows all of them. The setting cannot hold a comma, and its file no line break.
    if text := ",".join(each for each in labels if "," not in each and each.isprintable()):
        given["MODFLEET_LABELS"] = text
    return given


def usable_identity(path: Path) -> Identity:
    """Raises: `UsageError`."""
    try:
        return read_identity(path)
    except IdentityError as error:
        raise UsageError(f"{error} Delete the file first.") from error


def _new_identity(node: str, control: ControlPlane) -> Identity:
    credentials = Credentials(
        private_key=to_text(NodeSecret.generate().private), broker_password=secrets.token_urlsafe(32)
    )
    return Identity(node=node, credentials=credentials, control_keys=control.keys)
