"""The control plane's settings from its environment."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from config.environment import Environment, SettingsError, broker_url, database, pooled, read_environment, secret_key

ROOT = Path(__file__).parents[3]
#: What variables that hold an `Environment` are called.
HOLDERS = {"ENVIRONMENT", "environment", "limits", "self"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("secret_key", "17"),
        ("database_url", "sqlite:///17"),
        ("broker_url", "redis://h/17"),
        ("storage_options", "{}"),
        ("max_upload_bytes", "17"),
    ],
)
def test_any_setting_may_come_from_a_file(tmp_path, name, value):
    path = tmp_path / name
    path.write_text(f"{value}\n")
    found = read_environment({f"MODFLEET_{name.upper()}_FILE": str(path)})
    assert str(getattr(found, name)) == value


def test_a_file_keeps_all_but_the_end_of_its_last_line(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b" a b \r\n")
    assert secret_key(read_environment({"MODFLEET_SECRET_KEY_FILE": str(path)})) == " a b "


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"^MODFLEET_SECRET_KEY_FILE=.*/none cannot be read: .*No such file"):
        read_environment({"MODFLEET_SECRET_KEY_FILE": str(tmp_path / "none")})


def test_both_ways_at_once_are_refused(tmp_path):
    (tmp_path / "key").touch()
    both = {"MODFLEET_SECRET_KEY": "a", "MODFLEET_SECRET_KEY_FILE": str(tmp_path / "key")}
    with pytest.raises(SettingsError, match="are both set"):
        read_environment(both)


def test_what_is_wrong_in_a_file_is_named_without_its_content(tmp_path):
    path = tmp_path / "number"
    path.write_text("many")
    with pytest.raises(SettingsError) as raised:
        read_environment({"MODFLEET_MAX_UPLOAD_BYTES_FILE": str(path)})
    assert "MODFLEET_MAX_UPLOAD_BYTES" in str(raised.value)
    assert "many" not in str(raised.value)


def test_a_pool_of_the_size_that_is_set():
    read = read_environment(
        {
            "MODFLEET_DATABASE_URL": "postgresql://u:p@h/d?sslmode=require&options=-c%20work_mem%3D8MB",
            "MODFLEET_DATABASE_POOL_SIZE": "5",
            "MODFLEET_DATABASE_POOL_SECONDS": "1.5",
            "MODFLEET_DATABASE_LOCK_SECONDS": "2",
        }
    )
    alone, shared = database(read), pooled(database(read), read)
    assert alone["OPTIONS"]["options"] == "-c lock_timeout=2000 -c work_mem=8MB"
    assert (alone["OPTIONS"]["sslmode"], alone["CONN_MAX_AGE"], "pool" in alone["OPTIONS"]) == ("require", 600, False)
    assert (shared["OPTIONS"]["pool"]["max_size"], shared["OPTIONS"]["pool"]["timeout"]) == (5, 1.5)
    assert shared["CONN_MAX_AGE"] == 0


def test_sqlite_has_no_pool():
    read = read_environment({"MODFLEET_DATABASE_LOCK_SECONDS": "2"})
    assert pooled(database(read), read) == database(read)
    assert database(read)["OPTIONS"]["timeout"] == 2


def test_a_pool_of_nothing():
    with pytest.raises(SettingsError, match="MODFLEET_DATABASE_POOL_SIZE: must be more than 0"):
        read_environment({"MODFLEET_DATABASE_POOL_SIZE": "0"})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PUBLIC_URL", "foo", "must be http"),
        ("PUBLIC_URL", "https://", "must be http"),
        ("PUBLIC_URL", "https://user:secret@host", "must be http"),
        ("PUBLIC_URL", "https://host:many", "must be http"),
        ("BROKER_URL", "http://x", "must be redis://"),
        ("BROKER_URL", "redis://:secret@", "must be redis://"),
        ("BROKER_URL", "redis://[::1", "must be redis://"),
        ("DATABASE_URL", "mysql://u:secret@h/d", "must be postgresql://"),
        ("DATABASE_URL", "postgresql://u:secret@h:port/d", "must be postgresql://"),
        ("DATABASE_URL", "postgresql://u:secret@h", "must be postgresql://"),
        ("DATABASE_URL", "sqlite://", "must be postgresql://"),
        ("STORAGE_OPTIONS", "{secret", "must be a JSON object"),
        ("STORAGE_OPTIONS", "[1]", "must be a JSON object"),
        ("BROKER_CA", "/nothing", "needs a broker URL that begins with rediss://"),
        ("PROBE_ADDRESS", "8001", "must be HOST:PORT"),
        ("METRICS_TOKEN", "secret", "at least 16"),
        ("LOG_LEVEL", "LOUD", "Invalid enum value"),
        ("THREADS", "0", "must be more than 0"),
        ("DOWNLOAD_SECONDS", "nan", "must be a number"),
        ("UPLOADS_PER_MINUTE", "-1", "must be a number, 0 or more"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_name_and_no_secret_is_shown(name, value, said):
    with pytest.raises(SettingsError, match=f"^MODFLEET_{name}.*{said}") as raised:
        read_environment({f"MODFLEET_{name}": value})
    assert "secret" not in str(raised.value)


def test_an_authority_that_cannot_be_used_is_refused():
    given = {"MODFLEET_BROKER_URL": "rediss://host/0", "MODFLEET_BROKER_CA": "/nothing/ca.pem"}
    said = "MODFLEET_BROKER_CA: must be the path of a PEM file (/nothing/ca.pem: No such file or directory)"
    with pytest.raises(SettingsError, match=f"^{re.escape(said)}$"):
        read_environment(given)


def test_a_broker_with_tls_is_verified():
    assert broker_url(Environment(broker_url="rediss://host/0")) == "rediss://host/0?ssl_cert_reqs=required"
    assert broker_url(Environment(broker_url="redis://host/0")) == "redis://host/0"


@pytest.mark.parametrize(
    "given",
    [
        {"PUBLIC_URL": "http://[::1]:8000"},
        {"PUBLIC_URL": "https://modfleet.example.com/below"},
        {"BROKER_URL": "redis+socket:///run/broker.sock"},
        {"BROKER_URL": "redis+socket://user:secret@/run/broker.sock"},
        {"BROKER_URL": "rediss://user:secret@host:6379/0?ssl_cert_reqs=required"},
        {"DATABASE_URL": "postgresql://u:p@/d?host=/run/postgresql"},
        {"DATABASE_URL": "sqlite:////var/lib/modfleet.sqlite3"},
        {"DATABASE_URL": "postgres://%2Frun%2Fpostgresql/d"},
        {"REQUESTS_PER_MINUTE": "0"},
        {"PROBE_ADDRESS": "[::1]:8001"},
    ],
)
def test_what_works_is_taken(given):
    assert read_environment({f"MODFLEET_{name}": value for name, value in given.items()})


def test_each_setting_is_used():
    """The reference would promise what one that nothing reads does not do."""
    sources = [each for each in ROOT.glob("*/**/*.py") if each.relative_to(ROOT).parts[0] not in {".venv", "tests"}]
    used = {
        node.attr
        for source in sources
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] in HOLDERS
    }
    assert {each.name for each in fields(Environment)} - used == set()
