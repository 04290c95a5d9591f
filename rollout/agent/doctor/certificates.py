"""Reads and says when a certificate expires."""

import datetime as dt
from pathlib import Path

from cryptography import x509

DAY = 86_400.0


def seconds_left(file: Path) -> float:
    """Return the seconds until the first certificate in a PEM file expires; negative if it has.

    Raises: `OSError`; `ValueError` if the file has no certificate.
    """
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    return (certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)).total_seconds()


def in_days(seconds: float) -> str:
    days = round(seconds / DAY)
    return "1 day" if days == 1 else f"{days} days"
