"""Secrets and signatures of the Standard Webhooks specification: https://www.standardwebhooks.com"""

import base64
import binascii
import hashlib
import hmac
import secrets

PREFIX = "whsec_"
#: The shortest and the longest key of the specification, bytes.
SHORTEST_KEY, LONGEST_KEY = 24, 64


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """Return the key of a secret. Raises: `ValueError` if it is not a valid secret."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if not secret.startswith(PREFIX) or not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise ValueError("not a secret")
    return key


def signature(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()
