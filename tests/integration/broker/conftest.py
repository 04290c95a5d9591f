"""A broker with an ACL file, and an agent that signs in as its node."""

from tests.integration.agent.conftest import Valkey, built, shelf, short_folder, site, wait_for, waits

__all__ = ["Valkey", "built", "shelf", "short_folder", "site", "wait_for", "waits"]
