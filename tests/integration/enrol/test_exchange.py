"""What the installer sends, to whom, and what it does with each wrong input."""

import io
import ssl

import pytest

from modfleet.certificate import ensure_certificate
from modfleet.enrol import exchange
from rollout.signing import ControlSecret
from tests.ports import free_port

OTHER = ControlSecret("another control plane")


@pytest.fixture
def install(agent, redis_site):
    """Runs the command for a control plane with these options instead of the usual ones; None leaves one out."""

    def run(plane, *words, **changed):
        options = {"control": plane.url, "token": plane.token(), "server": redis_site.url, "name": "n1"} | changed
        given = [word for name, value in options.items() if value for word in (f"--{name}", value)]
        return agent("install", *given, "--root", redis_site.root, *words)

    return run


def test_a_private_ca_is_checked_and_then_used(install, https, redis_site):
    assert install(https).code == 0
    saved = redis_site.root / "var/lib/modfleet-agent/n1/control_ca.pem"
    assert saved.read_text() == https.ca
    assert redis_site.settings("n1")["MODFLEET_CONTROL_CA"] == str(saved)


def test_another_ca_gets_nothing(install, https, redis_site):
    before = redis_site.files()
    done = install(https, token=https.token(ca="another"))
    assert (done.code, https.posted) == (1, [])
    assert done.err == (
        f"{https.url} has another CA than the join token names. Nothing was sent to it. Check --control.\n"
    )
    assert redis_site.files() == before


def test_another_key_gets_nothing(install, control, redis_site):
    before = redis_site.files()
    done = install(control, token=control.token(key=OTHER))
    assert (done.code, control.posted) == (1, [])
    assert "another key than the join token names" in done.err
    assert redis_site.files() == before


def test_one_that_only_repeats_the_answer_gets_nothing(install, https, tmp_path):
    """It knows the CA's certificate, as everybody may, but not its key."""
    ensure_certificate(tmp_path / "genuine", [])
    https.ca = (tmp_path / "genuine/certificate.pem").read_text()
    done = install(https)
    assert (done.code, https.posted) == (4, [])
    assert "its certificate is not trusted" in done.err
    assert len(done.err.splitlines()) == 1


def test_without_a_ca_in_the_token_the_certificate_must_be_public(install, https):
    done = install(https, token=https.token(ca=None))
    assert (done.code, https.asked) == (4, [])
    assert "its certificate is not trusted" in done.err


def test_a_redirect_is_not_followed(install, control):
    control.failures = [307]
    done = install(control)
    assert (done.code, len(control.asked)) == (1, 2)
    assert len(done.err.splitlines()) == 1


def test_a_broken_answer_is_one_sentence(install, control, monkeypatch):
    monkeypatch.setattr(control, "hello", lambda: {"control_keys": "none"})
    done = install(control)
    assert (done.code, len(done.err.splitlines())) == (1, 1)


def test_a_broker_with_a_private_ca(install, control, redis_site):
    control.answer = {"broker_ca": "PEM of the broker's CA"}
    assert install(control).code == 0
    file = redis_site.root / "var/lib/modfleet-agent/n1/broker_ca.pem"
    assert file.read_text() == "PEM of the broker's CA"
    assert redis_site.settings("n1")["MODFLEET_BROKER_CA"] == str(file)


def test_a_server_with_tls_and_a_private_ca(install, control, redis_site):
    certificate, key = ensure_certificate(redis_site.root / "tls", [])
    for name, value in (("cert-file", certificate), ("key-file", key), ("ca-cert-file", certificate)):
        redis_site.call("CONFIG", "SET", f"tls-{name}", str(value))
    port = free_port()
    redis_site.call("CONFIG", "SET", "tls-auth-clients", "no", "tls-port", port)
    untrusted = install(control, server=f"rediss://127.0.0.1:{port}")
    assert (untrusted.code, len(untrusted.err.splitlines()), control.posted) == (1, 1, [])
    url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"
    done = install(control, server=url)
    assert (done.code, redis_site.settings("n1")["MODFLEET_SERVER_URL"].strip("'")) == (0, url)


@pytest.mark.parametrize(
    ("changed", "code", "sentence"),
    [
        (
            {"token": "mfj1.x"},
            2,
            "This is not a join token: copy the word mfj1... from the command that `modfleet nodes add` printed.",
        ),
        ({"token": None}, 2, "n1 is not enrolled yet. Give --token."),
        ({"server": None}, 2, "n1 is not enrolled yet. Give --server."),
        ({"control": "ftp://x"}, 2, "--control must be the URL of the control plane: https://HOST[:PORT]."),
        (
            {"control": "http://modfleet.example.com:8000"},
            2,
            (
                "--control http://modfleet.example.com:8000 sends the join token unencrypted: use "
                "https://modfleet.example.com:8000."
            ),
        ),
        ({"server": "tcp://x"}, 2, "--server must be unix:///PATH, redis://HOST:PORT or rediss://HOST:PORT."),
        ({"server": "redis://h:port"}, 2, "--server redis://h:port is not a URL."),
        (
            {"server": "redis://u:p@h:1"},
            2,
            "--server must have no user and no password: --admin-user and --admin-password-file have them.",
        ),
        (
            {"name": "a/b"},
            2,
            "'a/b' is not the name of a node: use up to 128 letters, digits, -, _ and dots.",
        ),
        (
            {"server": "unix:///nonexistent.sock"},
            1,
            "The server at unix:///nonexistent.sock cannot be reached: Error 2 connecting to /nonexistent.sock. No such file or directory. Check --server.",
        ),
        ({"root": "/nonexistent"}, 2, "--root /nonexistent is not a directory. Create it first."),
        (
            {"token-file": "/nonexistent", "token": None},
            2,
            "--token-file /nonexistent cannot be read: No such file or directory.",
        ),
        ({"admin-user": "root"}, 2, "--admin-user needs --admin-password-file."),
        ({"add": "all"}, 2, None),
        ({"wait": "long"}, 2, None),
    ],
)
def test_a_wrong_input_is_one_sentence_and_leaves_nothing(agent, control, redis_site, changed, code, sentence):
    before = redis_site.files()
    options = {"control": control.url, "token": control.token(), "server": redis_site.url, "name": "n1"}
    options |= {"root": str(redis_site.root)} | changed
    done = agent("install", *(word for name, value in options.items() if value for word in (f"--{name}", value)))
    assert (done.code, done.out, len(done.err.splitlines())) == (code, "", 1)
    assert sentence is None or done.err == f"{sentence}\n"
    assert redis_site.files() == before
    assert control.posted == []


def test_a_control_plane_that_cannot_be_reached(install, control, redis_site):
    before, port = redis_site.files(), free_port()
    done = install(control, control=f"http://127.0.0.1:{port}")
    assert done.code == 4
    assert done.err == f"The control plane at http://127.0.0.1:{port} cannot be reached: Connection refused.\n"
    assert redis_site.files() == before


def test_the_scheme_of_the_control_plane_is_wrong(install, control, https):
    plain = install(control, control=f"https://127.0.0.1:{control.port}")
    assert (plain.code, control.posted) == (4, [])
    assert plain.err == (
        f"The control plane at https://127.0.0.1:{control.port} cannot be reached: it does not speak TLS: check the port, "
        "and whether the URL is https.\n"
    )
    encrypted = install(https, control=f"http://127.0.0.1:{https.port}")
    assert (encrypted.code, https.posted) == (4, [])
    assert "if it speaks TLS, use https://" in encrypted.err


def test_a_token_that_was_used_leaves_nothing(install, control, redis_site):
    before = redis_site.files()
    done = install(control, token=control.token().replace("s" * 43, "t" * 43))
    assert done.code == 1
    assert done.err == (
        "The control plane refused the node: The token cannot be used. It is for another name, was used or "
        "revoked, or has expired: `modfleet nodes tokens` shows it.\n"
    )
    assert redis_site.files() == before


def test_a_name_that_another_host_has_leaves_nothing(install, control, redis_site):
    control.nodes["n1"] = "another key"
    before = redis_site.files()
    done = install(control)
    assert done.code == 1
    assert done.err == (
        "The control plane refused the node: Another agent speaks for n1. Stop it and wait until the node is offline, or revoke "
        "the node. If it is another host, give this one another name: --name, or MODFLEET_NODE for `agent run`.\n"
    )
    assert redis_site.files() == before


def test_the_token_comes_from_a_file_or_from_standard_input(agent, control, redis_site, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(f"{control.token()}\n")
    (tmp_path / "other").mkdir()
    options = ["--control", control.url, "--server", redis_site.url]
    first = ["--name", "n1", "--token-file", tmp_path / "token", "--root", redis_site.root]
    assert agent("install", *options, *first).code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(control.token()))
    assert agent("install", *options, "--name", "n2", "--token", "-", "--root", tmp_path / "other").code == 0
    assert set(control.nodes) == {"n1", "n2"}


def test_a_server_with_a_password(install, control, redis_site, tmp_path):
    redis_site.call("CONFIG", "SET", "requirepass", "secret")
    before = redis_site.files()
    refused = install(control)
    assert refused.code == 2
    assert "asks for a password. Give --admin-password-file" in refused.err
    assert (redis_site.files(), control.posted) == (before, [])
    (tmp_path / "password").write_text("wrong\n")
    wrong = install(control, "--yes", "--admin-password-file", tmp_path / "password")
    assert (wrong.code, control.posted) == (2, [])
    assert f"refuses the user default or the password in {tmp_path / 'password'}." in wrong.err
    (tmp_path / "password").write_text("secret\n")
    assert install(control, "--yes", "--admin-password-file", tmp_path / "password").code == 0
    redis_site.as_agent("n1", "PING")
    assert all("secret" not in text for text in redis_site.settings("n1").values() if "_password" not in text)


def test_the_context_of_a_broken_ca_is_a_sentence():
    with pytest.raises(exchange.RefusedError, match="not a PEM certificate"):
        exchange.trusting("none")
    assert exchange.trusting(None).verify_mode == ssl.CERT_REQUIRED
