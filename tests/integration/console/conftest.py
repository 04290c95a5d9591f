"""The fleet of the admin site's tests, and one of a thousand recorded nodes."""

import re
from typing import Any

from tests.integration.admin.conftest import *  # noqa: F403 - its fixtures


def shown_text(response: Any) -> str:
    """What a person reads, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))
