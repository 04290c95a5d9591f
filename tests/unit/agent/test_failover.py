"""Addresses of a shard's servers."""

import pytest

from rollout.agent.failover.shard import replica_url


@pytest.mark.parametrize(
    ("server_url", "address", "scheme", "url"),
    [
        ("unix:///run/server.sock", "10.0.0.2:6379", "redis", "redis://10.0.0.2:6379"),
        ("unix://agent:p%40ss@/run/server.sock", "10.0.0.2:6379", "redis", "redis://agent:p%40ss@10.0.0.2:6379"),
        ("redis://agent:p@127.0.0.1:1/0", "db-2.example.com:6380", "redis", "redis://agent:p@db-2.example.com:6380"),
        ("rediss://:p@[::1]:1", "fd00::2:6380", "rediss", "rediss://:p@[fd00::2]:6380"),
    ],
)
def test_a_replica_has_the_user_of_the_agents_own_server(server_url, address, scheme, url):
    assert replica_url(server_url, address, scheme) == url
