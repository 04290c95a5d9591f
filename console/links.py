"""URLs of console pages that have parameters."""

from django.urls import reverse
from django.utils.http import urlencode


def start_url(module_name: str, version: int) -> str:
    """Return the URL of the form that starts a rollout of the module version."""
    return f"{reverse('admin:start_rollout')}?{urlencode({'module': module_name, 'version': str(version)})}"
