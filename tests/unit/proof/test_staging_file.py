"""The file for a user's own fleet: what it means, and that each mistake is one sentence."""

import pytest

from modfleet.failure import UsageError
from modfleet.proof.history import Kind
from modfleet.proof.own_commands import MODULE_LIST
from modfleet.proof.paths import ClusterPath, PlainPath, SentinelPath, Tls
from modfleet.proof.staging_file import read_staging

SERVERS = "servers: {url: 'redis://cache.staging'}\n"
MODULE = "module: entries\n"
COMMANDS = "commands: {add: [entries.add, '{key}', '{entry}'], get: [entries.get, '{key}']}\n"


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        file = tmp_path / "staging.yaml"
        file.write_text(text)
        return read_staging(file)

    return read_text


def test_it_works(read):
    staging = read(SERVERS + MODULE + COMMANDS)
    assert staging.path == PlainPath(urls=("redis://cache.staging:6379",))
    assert (staging.rate, staging.clients, staging.commands.prefix) == (200, 4, "modfleet-proof:")
    assert (staging.commands.kind, staging.commands.version) == (Kind.ADD, MODULE_LIST)
    assert staging.commands.delete == ("DEL", "{key}")
    assert staging.commands.step(Kind.ADD, "k", 7).words == ("entries.add", "k", "7")
    assert staging.commands.step(Kind.GET, "k").words == ("entries.get", "k")


def test_sentinels_and_a_password(read, tmp_path):
    (tmp_path / "secret").write_text("correct horse\n")
    servers = "servers: {sentinel: {hosts: [s1, 's2:5000'], name: main}, username: proof, password_file: secret}\n"
    assert read(servers + MODULE + COMMANDS).path == SentinelPath(
        hosts=(("s1", 26379), ("s2", 5000)), name="main", username="proof", password="correct horse"
    )


def test_tls(read):
    """A URL that begins with rediss:// needs nothing else."""
    for servers in ("servers: {url: 'rediss://a'}\n", "servers: {cluster: [a], tls: {}}\n"):
        assert read(servers + MODULE + COMMANDS).path.tls == Tls()


def test_a_cluster(read):
    path = read("servers: {cluster: ['c1:7000', '[::1]:7001']}\n" + MODULE + COMMANDS).path
    assert path == ClusterPath(hosts=(("c1", 7000), ("::1", 7001)))


def test_a_register(read):
    commands = "commands: {set: [r.set, '{key}', '{entry}', EX, 3600], get: [r.get, '{key}'], version: [r.version]}\n"
    staging = read(SERVERS + MODULE + commands)
    assert (staging.commands.kind, staging.commands.version) == (Kind.SET, ("r.version",))
    assert staging.commands.step(Kind.SET, "k", 7).words == ("r.set", "k", "7", "EX", "3600")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not valid YAML"),
        ("- 1", "Expected `object`, got `array`"),
        (MODULE + COMMANDS, "servers is missing"),
        (SERVERS + COMMANDS, "module is missing"),
        (SERVERS + MODULE, "commands is missing"),
        (SERVERS + MODULE + COMMANDS + "rates: 5\n", "rates is not a field of this file"),
        (SERVERS + MODULE + COMMANDS + "rate: fast\n", "rate: expected `int`, got `str`"),
        (SERVERS + MODULE + COMMANDS + "rate: 0\n", "rate: expected `int` >= 1"),
        (SERVERS + MODULE + COMMANDS + "clients: 65\n", "clients: expected `int` <= 64"),
        (SERVERS + MODULE + COMMANDS + "prefix: ''\n", "prefix: expected `str` of length >= 1"),
        (SERVERS + MODULE + COMMANDS + "prefix: '{key}'\n", "prefix: expected `str` matching regex"),
        ("servers: {}\n" + MODULE + COMMANDS, "servers must have exactly one of url, sentinel and cluster"),
        ("servers: {url: 'redis://a', cluster: [b]}\n" + MODULE + COMMANDS, "servers must have exactly one of"),
        ("servers: {cluster: []}\n" + MODULE + COMMANDS, "servers.cluster: expected `array` of length >= 1"),
        ("servers: {sentinel: {hosts: [a]}}\n" + MODULE + COMMANDS, "servers.sentinel.name is missing"),
        ("servers: {url: 'redis://a', user: b}\n" + MODULE + COMMANDS, "servers.user is not a field of this file"),
        ("servers: {url: 'http://a'}\n" + MODULE + COMMANDS, "http://a is no URL of a server"),
        ("servers: {url: 'redis://:x@a'}\n" + MODULE + COMMANDS, "the password into servers.password_file"),
        ("servers: {url: 'redis://a/3'}\n" + MODULE + COMMANDS, "write it without a database"),
        ("servers: {url: 'redis://a:port'}\n" + MODULE + COMMANDS, "a:port has no valid port"),
        ("servers: {url: 'redis://a', username: b}\n" + MODULE + COMMANDS, "needs servers.password_file"),
        ("servers: {url: 'redis://a', password_file: none}\n" + MODULE + COMMANDS, "none cannot be read"),
        (
            "servers: {sentinel: {hosts: [a], name: b, username: c}}\n" + MODULE + COMMANDS,
            "servers.sentinel.username needs",
        ),
        (
            "servers: {url: 'redis://a', tls: {}}\n" + MODULE + COMMANDS,
            "servers.tls needs a URL that begins with rediss",
        ),
        (
            "servers: {cluster: [a], tls: {cert_file: b}}\n" + MODULE + COMMANDS,
            "both of cert_file and key_file, or none",
        ),
        ("servers: {cluster: [a], tls: {ca_file: b}}\n" + MODULE + COMMANDS, "b cannot be used: No such file"),
        ("servers: {cluster: [a], tls: {verify: no}}\n" + MODULE + COMMANDS, "servers.tls.verify is not a field"),
        (SERVERS + MODULE + "commands: {get: [g, '{key}']}\n", "commands must have exactly one of add and set"),
        (SERVERS + MODULE + "commands: {add: [a, '{key}'], get: [g, '{key}']}\n", "commands.add has no {entry}"),
        (SERVERS + MODULE + "commands: {set: ['{key}', '{entry}'], get: [g, '{key}']}\n", "commands.set has no {key}"),
        (SERVERS + MODULE + "commands: {add: [a, '{key}', '{entry}'], get: [g]}\n", "commands.get has no {key}"),
        (
            SERVERS + MODULE + "commands: {add: [a, '{key}', '{entry}'], get: [g, '{key}', '{entry}']}\n",
            "commands.get has {entry}, which means nothing there",
        ),
        (SERVERS + MODULE + "commands: {add: [], get: [g, '{key}']}\n", "commands.add: expected `array` of length"),
    ],
)
def test_a_mistake_is_one_sentence(read, text, sentence):
    with pytest.raises(UsageError) as refused:
        read(text)
    assert sentence in str(refused.value)
    assert "staging.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_staging(tmp_path / "staging.yaml")
