"""A broker with an ACL file, and an agent that signs in as its node."""

from tests.integration.agent.conftest import Valkey, aof, binary, built, scratch, shelf, short_folder, site, waits

__all__ = ["Valkey", "aof", "binary", "built", "scratch", "shelf", "short_folder", "site", "waits"]
