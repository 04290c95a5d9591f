"""Secrets and signatures of the Standard Webhooks specification: https://www.standardwebhooks.com"""

import base64
import binascii
import hashlib
import hmac
import secrets

PREFIX = "whsec_"
#: Lengths of keys that the specification allows, bytes.
SHORTEST_KEY, LONGEST_KEY = 24, 64


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The key that a secret stands for. Raises: `ValueError` if it is no secret."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if not secret.startswith(PREFIX) or not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise ValueError("no secret")
    return key


def signature(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Value of the header `webhook-signature`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()
