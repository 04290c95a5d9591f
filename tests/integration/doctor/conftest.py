"""A host with a real server and a real broker."""

from tests.integration.agent.conftest import short_folder

__all__ = ["short_folder"]
