"""Links by which nodes fetch packages: signed anew at each publish, short-lived, bound to a node and a digest."""

from datetime import timedelta

from django.conf import settings
from django.core import signing
from django.core.files.storage import FileSystemStorage, default_storage

from api.errors import ApiError, Kind

_SALT = "modfleet.download"


class InvalidLinkError(ApiError):
    """The download link has expired or was never one."""

    kind = Kind.FORBIDDEN
    code = "invalid_link"


class PackageGoneError(ApiError):
    """The storage does not have this package any more. Upload the same package again."""

    kind = Kind.GONE
    code = "package_gone"


def download_url(storage_key: str, *, package_sha256: str, node: str) -> str:
    """The storage's own signed link where it makes one, else one to this API, built on its public URL."""
    seconds = settings.ENVIRONMENT.download_seconds
    if not isinstance(default_storage, FileSystemStorage) and hasattr(default_storage, "querystring_auth"):
        return str(default_storage.url(storage_key, expire=int(seconds)))  # type: ignore[call-arg]  # S3, GCS
    signed = signing.dumps([storage_key, package_sha256, node], salt=_SALT)
    return f"{settings.ENVIRONMENT.public_url.rstrip('/')}/v2/downloads/{signed}"


def read_link(signed: str) -> str:
    """The storage key that the link is for. Raises: `InvalidLinkError`."""
    try:
        storage_key, _, _ = signing.loads(
            signed, salt=_SALT, max_age=timedelta(seconds=settings.ENVIRONMENT.download_seconds)
        )
    except signing.BadSignature as error:
        raise InvalidLinkError from error
    return str(storage_key)
