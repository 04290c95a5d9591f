"""Which control plane is meant and who asks: an option wins over the environment, that over the file."""

import base64
import json

import httpx
import pytest

from modfleet.access_token import TokenAuth, lifetime
from modfleet.failure import UsageError
from modfleet.profile import DEFAULT_URL, Given, Profile, access_from, profile_path, read_profile, write_profile

OURS = "https://control.example.com"


@pytest.fixture
def environ(tmp_path):
    return {"MODFLEET_CONFIG": str(tmp_path / "config.toml")}


def keep(environ, **fields):
    write_profile(profile_path(environ), Profile(**fields))


def access(environ, **given):
    return access_from(Given(**given), environ, ask=None)


def authorization(auth):
    return next(auth.auth_flow(httpx.Request("GET", OURS))).headers["Authorization"]


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


def token_of(issued, expires):
    claims = base64.urlsafe_b64encode(json.dumps({"iat": issued, "exp": expires}).encode()).decode().rstrip("=")
    return f"head.{claims}.signature"


def test_the_file_is_in_the_folder_for_settings(tmp_path):
    assert profile_path({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "modfleet" / "config.toml"
    assert str(profile_path({})).endswith("/.config/modfleet/config.toml")


def test_what_is_written_is_read(environ):
    profile = Profile(url=OURS, user='Ada "\\ Ü', token="t", cacert="/ca.pem")
    write_profile(profile_path(environ), profile)
    assert read_profile(profile_path(environ)) == profile


def test_without_a_word_it_is_where_up_listens(environ):
    assert access({**environ, "MODFLEET_TOKEN": "t"}).url == DEFAULT_URL


def test_option_environment_file(environ):
    keep(environ, url=OURS, token="kept")
    assert authorization(access(environ).auth) == "Bearer kept"
    said = {**environ, "MODFLEET_USER": "ada", "MODFLEET_PASSWORD": "p"}
    assert authorization(access(said).auth) == basic("ada:p")
    assert authorization(access({**said, "MODFLEET_TOKEN": "said"}).auth) == "Bearer said"
    assert authorization(access({**said, "MODFLEET_TOKEN": "said"}, user="bob").auth) == basic("bob:p")


@pytest.mark.parametrize("url", [OURS, f"{OURS}/"])
def test_what_the_file_holds_is_for_its_own_url(environ, url):
    keep(environ, url=url, token="kept")
    assert authorization(access(environ, url=OURS).auth) == "Bearer kept"
    with pytest.raises(UsageError, match="No credentials for https"):
        access(environ, url="https://other.example.com")


def test_a_password_of_the_file_is_its_users(environ):
    keep(environ, url=OURS, user="ada", password="p")
    assert authorization(access(environ).auth) == basic("ada:p")
    with pytest.raises(UsageError, match="No password for bob"):
        access(environ, user="bob")


def test_a_file_with_a_secret_that_others_may_read_is_refused(environ):
    keep(environ, url=OURS, token="kept")
    profile_path(environ).chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        access(environ)


@pytest.mark.parametrize("text", ["url = ", "url = 1", "colour = 'red'"])
def test_a_file_that_cannot_be_used_is_named(environ, text):
    profile_path(environ).write_text(text)
    with pytest.raises(UsageError, match=r"config\.toml"):
        access(environ)


@pytest.mark.parametrize(
    "url",
    [
        *["control", "ftp://control", "https://", "https://ada:p@control", "https://:p@control"],
        *["https://[control", "https://control:x", "https://control:99999", "https://control\r", "https://control#x"],
    ],
)
def test_a_url_that_is_none(environ, url):
    with pytest.raises(UsageError, match="The URL must be"):
        access(environ, url=url)


def test_a_secret_is_the_first_line_of_its_file(environ, tmp_path):
    (tmp_path / "secret").write_text("p q\r\nmore\n")
    given = {"user": "ada", "password_file": tmp_path / "secret"}
    assert authorization(access(environ, **given).auth) == basic("ada:p q")
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(UsageError, match="has no secret"):
        access(environ, **given)


def test_a_certificate_that_cannot_be_read(environ, tmp_path):
    (tmp_path / "ca.pem").write_text("none")
    for name in ("ca.pem", "nope.pem"):
        with pytest.raises(UsageError, match="PEM"):
            access({**environ, "MODFLEET_TOKEN": "t"}, cacert=tmp_path / name).trust()


def test_a_token_that_is_no_jwt_is_used_as_it_is():
    assert lifetime("nonsense") == (float("inf"), float("inf"))
    assert authorization(TokenAuth("nonsense", url=OURS)) == "Bearer nonsense"


def test_a_refused_renewal_is_not_asked_for_with_each_request(monkeypatch):
    monkeypatch.setattr("modfleet.access_token.time.time", lambda: 90.0)
    auth = TokenAuth(token_of(0, 100), url=OURS)
    flow = auth.auth_flow(httpx.Request("GET", OURS))
    asked = next(flow)
    assert (asked.url.path, json.loads(asked.content)) == ("/v1/users/refresh_jwt", {"ttl": 100})
    assert flow.send(httpx.Response(503)).url == OURS
    assert next(auth.auth_flow(httpx.Request("GET", OURS))).url == OURS
