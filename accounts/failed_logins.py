"""Limits of failed logins: one per user and client address, and a higher one per client address for all users.

There is no limit per user alone: then anyone could lock out any user. So a client with many addresses has as many times
the attempts. A client that shares its address with an attacker (an untrusted proxy, NAT) shares the limit.
A failure counts after its check, so that correct logins never wait for each other. If many are checked at once, a few more
than the limit may fail.
"""

import hashlib
import unicodedata

from django.conf import settings

from api.rate_limits import RateLimit, too_many

of_user = RateLimit()
of_address = RateLimit()


def require_attempts_left(login: str, *, address: str) -> None:
    """Call this before the password is checked. Raises: `TooManyRequestsError`."""
    limits = settings.ENVIRONMENT
    seconds = max(
        of_user.seconds_to_wait(_key(login, address), per_minute=limits.failed_logins_per_minute),
        of_address.seconds_to_wait(address, per_minute=limits.failed_logins_per_address_per_minute),
    )
    if seconds:
        raise too_many("failed logins", seconds)


def count_failed_login(login: str, *, address: str) -> None:
    limits = settings.ENVIRONMENT
    of_user.count(_key(login, address), per_minute=limits.failed_logins_per_minute)
    of_address.count(address, per_minute=limits.failed_logins_per_address_per_minute)


def _key(login: str, address: str) -> bytes:
    """Return a key of a fixed size, whatever was sent as a login. Spellings that mean the same login have the same key."""
    spelled = unicodedata.normalize("NFKC", login).strip().lower()
    return hashlib.blake2b(f"{address}\0{spelled}".encode(errors="replace"), digest_size=16).digest()
