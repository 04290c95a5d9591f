"""Links by which nodes fetch packages: signed at each publish, short-lived, for one node and one digest."""

from datetime import timedelta

from django.conf import settings
from django.core import signing
from django.core.files.storage import FileSystemStorage, default_storage

from api.errors import ApiError, Kind
from artifacts_app.vetoes import FETCH

_SALT = "modfleet.download"


class InvalidLinkError(ApiError):
    """The download link has expired or is not valid."""

    kind = Kind.FORBIDDEN
    code = "invalid_link"


class PackageGoneError(ApiError):
    """The storage no longer has this package. Upload the same package again."""

    kind = Kind.GONE
    code = "package_gone"


def download_url(storage_key: str, *, package_sha256: str, node: str) -> str:
    """Return the storage's own signed link if it makes one, or else a link to this API at its public URL."""
    seconds = settings.ENVIRONMENT.download_seconds
    if not isinstance(default_storage, FileSystemStorage) and hasattr(default_storage, "querystring_auth"):
        return str(default_storage.url(storage_key, expire=int(seconds)))  # type: ignore[call-arg]  # S3, GCS
    signed = signing.dumps([storage_key, package_sha256, node], salt=_SALT)
    return f"{settings.ENVIRONMENT.public_url.rstrip('/')}/v2/downloads/{signed}"


def read_link(signed: str, *, proof: str) -> str:
    """Return the storage key of the link. `proof`: what the client sent to show that it is the node of the link.

    Raises: `InvalidLinkError`.
    """
    try:
        storage_key, package_sha256, node = signing.loads(
            signed, salt=_SALT, max_age=timedelta(seconds=settings.ENVIRONMENT.download_seconds)
        )
    except signing.BadSignature as error:
        raise InvalidLinkError from error
    if not str(storage_key).startswith(package_sha256):
        raise InvalidLinkError("The link is for another package.")
    for veto in FETCH:
        veto(node, signed, proof)
    return str(storage_key)
