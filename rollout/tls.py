"""TLS to a Redis or Valkey whose certificate is from a private authority. Agents and the control plane use it."""

import ssl
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

SCHEME = "rediss"
#: Errors of OpenSSL that another authority would solve: signatures that do not match, unknown authorities.
UNTRUSTED = frozenset({7, 18, 19, 20, 21, 30})


def is_secured(url: str) -> bool:
    return urlsplit(url).scheme == SCHEME


def secured(url: str, *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> str:
    """Return a URL that also says which certificates to trust and to send. Other URLs than `rediss://` are unchanged.

    kombu, Celery and redis-py read these options from the URL, and kombu from nowhere else if the URL has any. Options that
    are in the URL stay. The certificate is verified unless the URL says otherwise: kombu's own default is not to.
    """
    if not is_secured(url):
        return url
    parts = urlsplit(url)
    files = {"ssl_ca_certs": ca, "ssl_certfile": certificate, "ssl_keyfile": key}
    options = {"ssl_cert_reqs": "required"} | {name: str(path) for name, path in files.items() if path}
    return urlunsplit(parts._replace(query=urlencode(options | dict(parse_qsl(parts.query)))))


def unusable_authority(path: Path) -> str | None:
    """Return why the file cannot be used as a certificate authority. None if it can be used."""
    try:
        ssl.create_default_context().load_verify_locations(path)
    except ssl.SSLError:
        return "the file has no certificate in PEM format"
    except OSError as error:
        return error.strerror or str(error)
    return None


def unusable_certificate(certificate: Path, key: Path) -> str | None:
    """Return why the certificate and its key cannot be sent to a server. None if they can."""
    try:
        ssl.create_default_context().load_cert_chain(certificate, key)
    except ssl.SSLError:
        return "the files are no certificate in PEM format and its private key"
    except OSError as error:
        return error.strerror or str(error)
    return None


def in_words(error: BaseException, setting: str) -> str:
    """Return the error without its last period. If the certificate is from another authority, name the `setting`."""
    cause = untrusted(error)
    if cause is None:
        return str(error).rstrip(".")
    words = f"its certificate is not trusted: {cause.verify_message.rstrip('.')}"
    fix = missing_authority(error, setting)
    return f"{words}. {fix}" if fix else words


def missing_authority(error: BaseException, setting: str) -> str | None:
    """Return the fix, without a period, if the certificate is from an authority that is not known. None otherwise."""
    cause = untrusted(error)
    if cause is None or cause.verify_code not in UNTRUSTED:
        return None
    return f"Set {setting} to the PEM file of the authority that signed it"


def untrusted(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the error of the certificate that has led to `error`. None if `error` has another cause."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error
