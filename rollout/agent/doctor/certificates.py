"""Reads when a certificate expires. The standard library can only read certificates of authorities."""

import datetime as dt
import ssl
from pathlib import Path


def seconds_left(file: Path) -> float:
    """Return the seconds until the first certificate in a PEM file expires; negative if it has.

    Raises: `OSError`; `ValueError` if the file has no certificate.
    """
    text = file.read_text(errors="replace")
    begin = text.find(ssl.PEM_HEADER)
    end = text.find(ssl.PEM_FOOTER, begin)
    if begin < 0 or end < 0:
        raise ValueError("no certificate in PEM")
    try:
        not_after = _not_after(ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)]))
    except IndexError as error:
        raise ValueError("a damaged certificate") from error
    return (not_after - dt.datetime.now(dt.UTC)).total_seconds()


def _not_after(der: bytes) -> dt.datetime:
    """Return `notAfter` of a certificate: RFC 5280, 4.1."""
    certificate = _value(der)[1]
    body = _value(certificate)[1]
    tag, _, rest = _value(body)
    if tag != 0xA0:  # without a version
        rest = body
    for _ in range(3):  # serial number, signature, issuer
        _, _, rest = _value(rest)
    _, validity, _ = _value(rest)
    _, _, rest = _value(validity)
    tag, text, _ = _value(rest)
    form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"  # UTCTime, GeneralizedTime
    return dt.datetime.strptime(text.decode("ascii"), form).replace(tzinfo=dt.UTC)


def _value(der: bytes) -> tuple[int, bytes, bytes]:
    """Return tag and content of the first value, and what follows."""
    tag, length, at = der[0], der[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(der[2:at])
    return tag, der[at : at + length], der[at + length :]
