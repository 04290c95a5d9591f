"""The agent's settings from its environment."""

from dataclasses import fields
from pathlib import Path

import pytest

from config.environment import Environment
from rollout.agent.settings import AgentSettings, SettingsError, is_broker, is_plain_http, settings_from
from tests.authority import Authority

ENVIRON = {
    "MODFLEET_NODE": "n1",
    "MODFLEET_BROKER_URL": "redis://broker/0",
    "MODFLEET_CONTROL_URL": "https://control",
    "MODFLEET_SERVER_URL": "unix:///run/valkey.sock",
    "MODFLEET_MODULES_DIR": "/var/lib/modfleet",
    "MODFLEET_JOURNAL_DIR": "/var/lib/modfleet-journal",
}


def test_it_works():
    settings = settings_from(ENVIRON)
    assert settings.modules_dir == Path("/var/lib/modfleet")
    assert (settings.beat_seconds, settings.labels, settings.api_hosts) == (10.0, {}, ())
    assert settings.persistence == "include"


def test_all_kinds_are_read():
    more = {"PERSISTENCE": "rewrite", "BEAT_SECONDS": "2.5", "LABELS": "zone=a, tier=b=c", "API_HOSTS": "one, two"}
    settings = settings_from(ENVIRON | {f"MODFLEET_{name}": value for name, value in more.items()})
    assert (settings.persistence, settings.beat_seconds) == ("rewrite", 2.5)
    assert settings.labels == {"zone": "a", "tier": "b=c"}
    assert settings.api_hosts == ("one", "two")


@pytest.mark.parametrize(
    ("former", "given", "owner"),
    [("true", "", "include"), ("false", "", "external"), ("off", "", "external"), ("false", "rewrite", "rewrite")],
)
def test_the_setting_of_earlier_releases_is_read(former, given, owner):
    more = {"MODFLEET_PERSIST": former, "MODFLEET_PERSISTENCE": given}
    assert settings_from(ENVIRON | more).persistence == owner


@pytest.mark.parametrize("variable", ENVIRON)
def test_a_missing_one_is_named(variable):
    with pytest.raises(SettingsError, match=rf"^{variable} is not set\.$"):
        settings_from(ENVIRON | {variable: ""})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NODE", "a/b"),
        ("NODE", "n\n"),
        ("NODE", "n" * 129),
        ("CONTROL_URL", "ftp://x"),
        ("SERVER_URL", "/run/valkey.sock"),
        ("MODULES_DIR", "relative"),
        ("PERSISTENCE", "perhaps"),
        ("BEAT_SECONDS", "0"),
        ("BEAT_SECONDS", "soon"),
        ("LABELS", "zone"),
        ("FAILOVER", "always"),
        ("SENTINEL_URLS", "redis://host:26379"),
        ("SENTINEL_URLS", '["redis://host"]'),
        ("SENTINEL_URLS", '["http://host:26379"]'),
        ("SENTINEL_MASTER", "*"),
    ],
)
def test_a_wrong_one_is_named(variable, value):
    with pytest.raises(SettingsError, match=f"^MODFLEET_{variable} is wrong: "):
        settings_from(ENVIRON | {f"MODFLEET_{variable}": value})


@pytest.mark.parametrize("missing", ["SENTINEL_URLS", "SENTINEL_MASTER"])
def test_a_failover_by_sentinel_needs_the_sentinels(missing):
    more = {
        "MODFLEET_FAILOVER": "sentinel",
        "MODFLEET_PERSISTENCE": "rewrite",
        "MODFLEET_SENTINEL_URLS": '["redis://user:p@host:26379", "rediss://[::1]:26380"]',
        "MODFLEET_SENTINEL_MASTER": "main",
    }
    settings = settings_from(ENVIRON | more)
    assert settings.sentinel_urls == ("redis://user:p@host:26379", "rediss://[::1]:26380")
    with pytest.raises(
        SettingsError, match=r"^MODFLEET_FAILOVER=sentinel needs MODFLEET_SENTINEL_URLS and MODFLEET_SENTINEL_MASTER\.$"
    ):
        settings_from(ENVIRON | more | {f"MODFLEET_{missing}": ""})


@pytest.mark.parametrize("way", ["sentinel", "command"])
def test_a_failover_that_rewrites_the_main_file_needs_its_owner(way):
    with pytest.raises(SettingsError, match=rf"^MODFLEET_FAILOVER={way} needs MODFLEET_PERSISTENCE=rewrite"):
        settings_from(ENVIRON | {"MODFLEET_FAILOVER": way})


SECURED = {"BROKER_URL": "rediss://broker/0", "SERVER_URL": "rediss://server"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"BROKER_CA": "{ca}", "BROKER_URL": "redis://broker/0"},
            "BROKER_CA is set, but MODFLEET_BROKER_URL does not begin with",
        ),
        (
            {"SERVER_CA": "{ca}", "SERVER_URL": "unix:///s"},
            "SERVER_CA is set, but MODFLEET_SERVER_URL does not begin with",
        ),
        ({"BROKER_CA": "/nothing/ca.pem"}, r"BROKER_CA is wrong: /nothing/ca.pem: No such file or directory\.$"),
        ({"SERVER_CA": "{key}"}, r"SERVER_CA is wrong: .*: the file has no certificate in PEM format\.$"),
        ({"SERVER_CERTIFICATE": "{certificate}"}, "SERVER_CERTIFICATE and MODFLEET_SERVER_KEY must be set together"),
        ({"SERVER_KEY": "{key}"}, "SERVER_CERTIFICATE and MODFLEET_SERVER_KEY must be set together"),
        (
            {"SERVER_CERTIFICATE": "{certificate}", "SERVER_KEY": "{key}", "SERVER_URL": "unix:///s"},
            "SERVER_CERTIFICATE is set, but MODFLEET_SERVER_URL does not begin with rediss://",
        ),
        (
            {"SERVER_CERTIFICATE": "{ca}", "SERVER_KEY": "{key}"},
            "SERVER_CERTIFICATE or MODFLEET_SERVER_KEY is wrong: the files",
        ),
        (
            {"SERVER_CERTIFICATE": "{certificate}", "SERVER_KEY": "/nothing/key"},
            "SERVER_CERTIFICATE or MODFLEET_SERVER_KEY is wrong: No such file or directory",
        ),
    ],
)
def test_a_wrong_certificate_is_one_sentence(tmp_path, given, said):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("agent")
    paths = {"ca": authority.certificate, "certificate": certificate, "key": key}
    given = {f"MODFLEET_{name}": value.format(**paths) for name, value in (SECURED | given).items()}
    with pytest.raises(SettingsError, match=f"^MODFLEET_{said}"):
        settings_from(ENVIRON | given)


def test_any_may_come_from_a_file(tmp_path):
    (tmp_path / "url").write_text("redis://node.n1:secret@broker/0\n")
    environ = {**ENVIRON, "MODFLEET_BROKER_URL_FILE": str(tmp_path / "url")}
    del environ["MODFLEET_BROKER_URL"]
    assert settings_from(environ).broker_url == "redis://node.n1:secret@broker/0"


def test_a_file_and_a_value_are_refused(tmp_path):
    (tmp_path / "url").touch()
    with pytest.raises(SettingsError, match=r"^MODFLEET_BROKER_URL and MODFLEET_BROKER_URL_FILE are both set"):
        settings_from(ENVIRON | {"MODFLEET_BROKER_URL_FILE": str(tmp_path / "url")})


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"^MODFLEET_LABELS_FILE=.*/none cannot be read"):
        settings_from(ENVIRON | {"MODFLEET_LABELS_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("MODULE_DIR", "MODULES_DIR"),
        ("SEVER_URL", "SERVER_URL"),
        ("LABEL", "LABELS"),
        ("BROKERURL_FILE", "BROKER_URL_FILE"),
        ("SERVER_PASSWORD", "SERVER_PASSWORD_FILE"),
    ],
)
def test_a_misspelt_one_is_named(variable, meant):
    with pytest.raises(SettingsError, match=rf"^MODFLEET_{variable} is no setting: did you mean MODFLEET_{meant}\?$"):
        settings_from(ENVIRON | {f"MODFLEET_{variable}": "x"})


def test_variables_of_other_programs_are_ignored():
    names = [each.name.upper() for each in fields(Environment)]
    names += [
        "URL",
        "TOKEN",
        "USER",
        "PASSWORD",
        "NEW_PASSWORD",
        "CACERT",
        "CONFIG",
        "TRACEBACK",
        "ADMIN_PASSWORD",
        "HOST",
    ]
    others = {f"MODFLEET_{name}{end}": "x" for name in names for end in ("", "_FILE")}
    own = {f"MODFLEET_{each.name.upper()}{end}" for each in fields(AgentSettings) for end in ("", "_FILE")}
    assert settings_from({name: value for name, value in others.items() if name not in own} | ENVIRON)


@pytest.mark.parametrize(
    ("broker", "server", "same"),
    [
        ("redis://b/0", "redis://b:6379", True),
        ("redis://user:x@127.0.0.1:7/0", "redis://localhost:7", True),
        ("redis+socket://u:p@/run/s", "unix:///run/s", True),
        ("redis+socket:///run/a%20b", "unix:///run/a b", True),
        ("redis://b/0", "redis://b:6380", False),
        ("redis://b/0", "unix:///run/s", False),
    ],
)
def test_the_server_is_not_the_broker(broker, server, same):
    assert is_broker(settings_from(ENVIRON | {"MODFLEET_BROKER_URL": broker, "MODFLEET_SERVER_URL": server})) is same


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://control.invalid", True),
        ("http://192.0.2.1:8000", True),
        ("http://localhost:8000", False),
        ("http://127.0.0.2", False),
        ("http://[::1]:8000", False),
        ("https://control", False),
    ],
)
def test_which_urls_need_https(url, plain):
    assert is_plain_http(url) is plain
