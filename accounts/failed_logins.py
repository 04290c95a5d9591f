"""Limits of failed logins: per account and client address, and more of them per client address for all accounts.

None is per account alone: then anybody could lock anybody out. The price is that whoever has many addresses has as many
times the attempts. Who shares an address with an attacker (a proxy that is not trusted, NAT) shares the lock.
Failures count once they are known, so that correct logins never wait for each other: of those that are checked at the
same moment a few more than the limit may fail.
"""

import hashlib
import unicodedata

from django.conf import settings

from api.rate_limits import RateLimit, too_many

of_account = RateLimit()
of_address = RateLimit()


def require_attempts_left(login: str, *, address: str) -> None:
    """Before the password is looked at. Raises: `TooManyRequestsError`."""
    limits = settings.ENVIRONMENT
    seconds = max(
        of_account.seconds_to_wait(_key(login, address), per_minute=limits.failed_logins_per_minute),
        of_address.seconds_to_wait(address, per_minute=limits.failed_logins_per_address_per_minute),
    )
    if seconds:
        raise too_many("failed logins", seconds)


def count_failed_login(login: str, *, address: str) -> None:
    limits = settings.ENVIRONMENT
    of_account.count(_key(login, address), per_minute=limits.failed_logins_per_minute)
    of_address.count(address, per_minute=limits.failed_logins_per_address_per_minute)


def _key(login: str, address: str) -> bytes:
    """Of a fixed size, whatever was sent as a login; one for all spellings that forms and addresses take for one."""
    spelled = unicodedata.normalize("NFKC", login).strip().lower()
    return hashlib.blake2b(f"{address}\0{spelled}".encode(errors="replace"), digest_size=16).digest()
