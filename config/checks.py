"""What `modfleet-manage check` says about our own settings, beside what Django says about its own."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004  # Django's name
from django.core.files.storage import storages

from config.environment import Environment


@register(Tags.files)
def check_storage(*_: Any, **__: Any) -> list[CheckMessage]:
    """Check that the storage of packages accepts its options. The storage itself is not contacted."""
    try:
        storages.create_storage(settings.STORAGES["default"])
    except Exception as error:  # noqa: BLE001  # the library of each storage has errors of its own
        return [
            Error(
                f"MODFLEET_STORAGE_BACKEND and MODFLEET_STORAGE_OPTIONS make no storage: {error}",
                hint="Give the options that the documentation of the backend names, and install its library.",
                id="modfleet.E001",
            )
        ]
    return []


@register(Tags.security, deploy=True)
def check_production(*_: Any, **__: Any) -> list[CheckMessage]:
    return list(warnings_about(settings.ENVIRONMENT))


def warnings_about(environment: Environment) -> Iterator[CheckMessage]:
    if "*" in environment.allowed_hosts.split(","):
        yield Warning("MODFLEET_ALLOWED_HOSTS is *.", hint="Name the hosts that requests mean.", id="modfleet.W001")
    if not environment.public_url.startswith("https://"):
        yield Warning(
            "MODFLEET_PUBLIC_URL is not https://...: links to packages are credentials.",
            hint="Set it to the address at which agents reach the proxy that ends TLS.",
            id="modfleet.W002",
        )
    if not environment.database_url.startswith(("postgres://", "postgresql://")):
        yield Warning(
            "MODFLEET_DATABASE_URL names no PostgreSQL.",
            hint="SQLite serves one machine only: all processes have to share the file.",
            id="modfleet.W003",
        )
