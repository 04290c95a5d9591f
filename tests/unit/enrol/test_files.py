"""The token, the settings and the unit as text."""

import shlex
import subprocess
from pathlib import Path

import pytest

from modfleet.enrol import exchange, join_token
from modfleet.enrol.host import Host
from modfleet.enrol.layout import read_settings, settings_text
from modfleet.enrol.server import _require_supported, check_url, short_name
from modfleet.failure import CommandError, UsageError
from rollout.signing import ControlSecret

ROOT = Path(__file__).parents[3]
TOKEN = f"mfj1.{'0' * 32}.{'s' * 43}.{'a' * 32}.{'b' * 64}"


def test_a_token_has_its_parts():
    token = join_token.parsed(f" {TOKEN}\n")
    assert (token.id, token.fingerprint, token.ca_sha256) == ("0" * 32, "a" * 32, "b" * 64)
    assert "s" * 43 not in repr(token)
    assert join_token.parsed(TOKEN.replace("b" * 64, "-")).ca_sha256 is None


def test_a_token_names_the_keys_of_one_control_plane():
    key, other = (ControlSecret(each).public for each in ("a", "b"))
    named = join_token.parsed(TOKEN.replace("a" * 32, key.fingerprint))
    assert (named.accepts_key(key), named.accepts_key(other)) == (True, False)
    almost = join_token.parsed(
        TOKEN.replace("a" * 32, f"{key.fingerprint[:-1]}{'0' if key.fingerprint[-1] != '0' else '1'}")
    )
    assert not almost.accepts_key(key)


@pytest.mark.parametrize(
    "text",
    ["", "mfj2" + TOKEN[4:], TOKEN[:-1], f"{TOKEN}.x", TOKEN.replace("s", "!", 1), TOKEN.replace("aa", "", 1), "-"],
)
def test_another_text_is_no_token(text):
    with pytest.raises(UsageError):
        join_token.parsed(text)


@pytest.mark.parametrize("url", ["http://10.0.0.1", "http://modfleet", "http://127.0.0.1.example.com", "http://[::2]"])
def test_http_is_for_this_host_only(url):
    with pytest.raises(UsageError, match=r"unencrypted"):
        exchange.check_url(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:80", "https://modfleet/x"])
def test_urls_of_a_control_plane(url):
    assert exchange.check_url(f"{url}/") == url


@pytest.mark.parametrize(
    "url", ["https://", "https://u:p@h", "https://h?x=1", "https://h:x", "modfleet.example.com", "//"]
)
def test_other_urls_are_refused(url):
    with pytest.raises(UsageError):
        exchange.check_url(url)


@pytest.mark.parametrize(
    ("url", "name"),
    [("unix:///run/redis/redis-a.sock", "redis-a"), ("redis://127.0.0.1:6380", "6380"), ("redis://h", "6379")],
)
def test_the_short_name_of_a_server(url, name):
    assert short_name(check_url(url)) == name


@pytest.mark.parametrize(
    ("kind", "version"), [("redis", "6.2.14"), ("redis", ""), ("valkey", "7.0.0"), ("redis", "unknown")]
)
def test_older_servers_are_refused(kind, version):
    with pytest.raises(CommandError, match=r"supports Redis 7.0 and newer, and Valkey 7.2 and newer"):
        _require_supported(kind, version)


@pytest.mark.parametrize(("kind", "version"), [("redis", "7.0.15"), ("redis", "8.2.1"), ("valkey", "7.2.4")])
def test_supported_servers(kind, version):
    _require_supported(kind, version)


VALUES = {
    "A": "x",
    "B": "it's two & words",
    "C": '$HOME `id` "q"',
    "D": "a=b,c=d",
    "E": "",
    "F": "rediss://h/0?a=b&c=d",
}


def test_settings_are_read_as_written(tmp_path):
    host = Host(tmp_path)
    host.write("/etc/modfleet/agents/n1.env", settings_text(host, "n1", VALUES), mode=0o600)
    assert read_settings(host, "n1") == VALUES


def test_a_shell_reads_the_same(tmp_path):
    host = Host(tmp_path)
    path = tmp_path / "etc/modfleet/agents/n1.env"
    host.write("/etc/modfleet/agents/n1.env", settings_text(host, "n1", VALUES), mode=0o600)
    script = f"set -a; . {shlex.quote(str(path))}; " + "; ".join(f"printf '%s\\n' \"${name}\"" for name in VALUES)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(VALUES.values())


def test_comments_and_unchanged_lines_stay(tmp_path):
    host = Host(tmp_path)
    text = '# ours\nA = 1\nA="x"  # why\nB=old\n\nGONE=1\n'
    host.write("/etc/modfleet/agents/n1.env", text.encode(), mode=0o600)
    changed = settings_text(host, "n1", {"A": "x", "B": "new"}).decode()
    assert changed == '# ours\nA = 1\nA="x"  # why\nB=new\n\n'


def test_settings_that_cannot_be_read_are_a_sentence(tmp_path):
    host = Host(tmp_path)
    host.write("/etc/modfleet/agents/n1.env", b"A='x\n", mode=0o600)
    with pytest.raises(UsageError, match=r"No closing quotation"):
        read_settings(host, "n1")


def test_the_unit_has_one_source():
    shipped = (ROOT / "modfleet/enrol/modfleet-agent@.service").read_text()
    assert (ROOT / "deploy/systemd/modfleet-agent@.service").read_text() == shipped
