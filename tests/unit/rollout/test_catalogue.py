"""Which Redis version a server counts as, and which is older."""

import pytest

from rollout.models import Node
from rollout.planning.catalogue import is_older, redis_version_of


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("7.2.3", "7.2.4"), ("7.2", "7.2.1"), ("7.9", "7.10"), ("6.2.14", "7"), ("7.2.4-rc1", "8.0")],
)
def test_versions_are_compared_by_whole_components(version, wanted):
    assert is_older(version, wanted)
    assert not is_older(wanted, version)


@pytest.mark.parametrize(
    ("version", "wanted"), [("7.2", "7.2.0"), ("7.2.0", "7.2"), ("8.0-rc1", "8.0"), ("7.2", "7.2")]
)
def test_the_same_version_is_not_older(version, wanted):
    assert not is_older(version, wanted)


@pytest.mark.parametrize(("version", "wanted"), [("", "7.2"), ("7.2", ""), ("unstable", "7.2"), ("7.2", "latest")])
def test_what_is_no_version_limits_nothing(version, wanted):
    assert not is_older(version, wanted)


def test_what_the_server_itself_reports_counts():
    node = Node(server="valkey", server_version="10.0.0", redis_version="7.4.1")
    assert redis_version_of(node) == "7.4.1"


@pytest.mark.parametrize(
    ("server", "version", "counts_as"),
    [("redis", "6.2.1", "6.2.1"), ("valkey", "9.1.2", "7.2.4"), ("", "9.1.2", ""), ("redis", "", "")],
)
def test_valkey_counts_as_the_redis_it_forked_from(server, version, counts_as):
    assert redis_version_of(Node(server=server, server_version=version)) == counts_as
