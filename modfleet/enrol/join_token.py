"""The join token that `modfleet nodes add` prints: `mfj1.<id>.<secret>.<fingerprint>.<SHA-256 of the CA, or ->`."""

import hmac
import re
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from modfleet.failure import UsageError
from rollout.signing import ControlKey

_TOKEN = re.compile(
    r"mfj1\.(?P<id>[A-Za-z0-9_-]{1,64})\.[A-Za-z0-9_-]{16,128}"
    r"\.(?P<fingerprint>[0-9a-f]{32})\.(?P<ca>[0-9a-f]{64}|-)"
)
#: No token is longer, bytes.
LONGEST = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """`fingerprint` is that of the control plane's keys. `ca_sha256` is None if its certificate is from a public CA."""

    text: str = field(repr=False)
    id: str
    fingerprint: str
    ca_sha256: str | None

    def accepts_key(self, key: ControlKey) -> bool:
        return hmac.compare_digest(key.fingerprint, self.fingerprint)

    def accepts_ca(self, pem: str) -> bool:
        return self.ca_sha256 is not None and hmac.compare_digest(sha256(pem.encode()).hexdigest(), self.ca_sha256)


def parsed(text: str) -> JoinToken:
    """Return the token. Raises: `UsageError`."""
    found = _TOKEN.fullmatch(text.strip())
    if not found:
        raise UsageError(
            "This is not a join token: copy the word mfj1... from the command that `modfleet nodes add` printed."
        )
    ca = found["ca"]
    return JoinToken(
        text=found[0], id=found["id"], fingerprint=found["fingerprint"], ca_sha256=None if ca == "-" else ca
    )


def read(token: str | None, file: Path | None) -> JoinToken | None:
    """Return the token of `--token` (`-`: standard input) or `--token-file`, or None. Raises: `UsageError`."""
    if file is not None:
        try:
            with file.open() as opened:
                return parsed(opened.read(LONGEST))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UsageError(f"--token-file {file} cannot be read: {reason}.") from error
    if token == "-":  # noqa: S105 - standard input
        return parsed(sys.stdin.read(LONGEST))
    return parsed(token) if token is not None else None
