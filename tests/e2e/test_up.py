"""`modfleet up`: what it says, how it ends, and what it refuses to start."""

import os
import pty
import signal
import socket
import ssl
import subprocess
import sys

import httpx
import pytest

from tests.fleet import PASSWORD, ROOT, Fleet
from tests.waiting import PATIENCE, wait_for

#: A space, both quotes, what a shell, a URL or a format string takes for something else, and a letter beyond ASCII.
ODD = """a b's "ä" #1%20$x{y}&"""


def refused(up, *words):
    """It has ended with one sentence on stderr and exit code 2, and nothing of it runs."""
    assert up.process.wait(PATIENCE) == 2
    said = up.errors.read_text()
    assert len(said.splitlines()) == 1, said
    for each in words:
        assert each in said
    assert all(line.startswith("starting http") for line in up.said().splitlines()), up.said()
    assert up.end() == 2


def test_sample_answers_on_each_node_and_is_kept(start):
    up = start("--nodes", "2", environ={"MODFLEET_ADMIN_PASSWORD": None})
    up.wait_until_it_says("Ctrl-C")
    said = up.said()
    assert said.startswith(f"starting {up.url} with 2 nodes in {up.folder}\n")
    assert "node-2> GREET.HELLO node-2  ->  Hello, node-2, from greet 1.0.0" in said
    for path in ("/v2/nodes", "/docs", "/admin/"):
        assert httpx.get(up.url + path).status_code in {200, 302, 401}
        assert up.url + path in said
    password = up.wait_until_it_says("user").split()[-1]
    assert up.end(signal.SIGINT) == 0
    assert up.errors.read_text() == ""

    again = start("--nodes", "2", environ={"MODFLEET_ADMIN_PASSWORD": None, "PATH": "/nowhere"})
    again.wait_until_it_says("Ctrl-C")
    assert "node-1> GREET.HELLO node-1  ->  Hello, node-1, from greet 1.0.0" in again.said()
    assert f"user       admin, password {password}" in again.said()
    assert f"modfleet login --url {again.url} --user admin" in again.said()
    # It is not on the PATH.
    program = again.said().split("  sign in    ")[1].split()[0]
    assert program != "modfleet"
    assert (ROOT / program).is_file()
    rollouts = httpx.get(f"{again.url}/v2/rollouts", auth=("admin", password)).json()["results"]
    assert [each["phase"] for each in rollouts] == ["succeeded"]


@pytest.mark.parametrize(
    ("verb", "phase", "said"), [("pause", "paused", "Paused since"), ("abort", "aborted", "Aborted")]
)
def test_it_keeps_running_when_the_sample_is_stopped_from_elsewhere(start, verb, phase, said):
    up = start("--nodes", "2")
    assert up.url
    up.send("node-1-agent", signal.SIGSTOP)  # the sample is compiled first, so its rollout cannot have ended
    up.wait_until_it_says("uploaded")
    (known,) = [line for line in up.said().splitlines() if "password" in line]
    with (fleet := Fleet(up, nodes=2)).api:
        (rollout,) = wait_for(lambda: fleet.get("/v2/rollouts")["results"])
        assert fleet.api.post(f"/v2/rollouts/{rollout['uid']}/{verb}", json={}).is_success
        up.send("node-1-agent", signal.SIGCONT)
        up.wait_until_it_says("Ctrl-C")
        shown = up.said()
        assert f"rollout {rollout['uid']} {phase}: " in shown
        assert f"`modfleet rollout why {rollout['uid']}` shows the reason" in shown
        assert said in shown.split(f"rollout {rollout['uid']} {phase}: ")[1]
        assert shown.index(known) < shown.index("uploaded")
        assert fleet.rollout(rollout["uid"])["phase"] == phase
    assert up.end(signal.SIGINT) == 0
    assert up.errors.read_text() == ""


def test_the_sample_says_what_it_waits_for(start):
    frozen = start("--nodes", "1", "--no-sample")
    with (fleet := Fleet(frozen, nodes=1)).api:
        fleet.post("/v2/freeze", {"reason": "holidays"}, status=200)
    assert frozen.end() == 0
    up = start("--nodes", "1")
    assert "holidays" in up.wait_until_it_says("waits for")
    with (fleet := Fleet(up, nodes=1)).api:
        assert fleet.api.delete("/v2/freeze").is_success
    assert up.wait_until_it_says("node-1> GREET.HELLO")


def test_local_node_is_its_first_also_after_a_crash(start):
    """Killed, it leaves nothing, also when a process hangs."""
    crashed = start("--no-sample", "--nodes", "1")
    assert crashed.url
    crashed.send("node-1-agent", signal.SIGSTOP)
    assert crashed.end(signal.SIGKILL) == -signal.SIGKILL
    up = start("--no-sample", "--nodes", "1", environ={"NODE_NAME": "other", "MODFLEET_NODE_NAME": "another"})
    with httpx.Client(base_url=up.url, auth=("admin", PASSWORD)) as api:
        assert api.get("/v2/local/modules/user-defined/artifacts").json() == []
        assert [each["name"] for each in api.get("/v2/nodes").json()["results"]] == ["node-1"]


def test_tls_in_a_folder_with_every_kind_of_letter(start):
    up = start("--nodes", "1", "--tls", name=ODD)
    up.wait_until_it_says("Ctrl-C")
    assert up.url.startswith("https://")
    assert "node-1> GREET.HELLO node-1  ->  Hello, node-1, from greet 1.0.0" in up.said()
    assert (up.folder / "log-heads").read_text().endswith("\n")
    trusted = ssl.create_default_context(cafile=up.folder / "tls" / "certificate.pem")
    trusted.verify_flags |= ssl.VERIFY_X509_STRICT
    for url in (up.url, up.url.replace("127.0.0.1", "localhost")):
        assert httpx.get(f"{url}/v2/nodes", verify=trusted, auth=("admin", PASSWORD)).status_code == 200
    # An agent of another host must be able to trust it, too.
    assert (
        httpx.get(f"{up.url}/v2/enrolment", verify=trusted).json()["ca"]
        == (up.folder / "tls" / "certificate.pem").read_text()
    )
    assert (up.folder / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    up.kill("node-1-server")
    with (fleet := Fleet(up, nodes=1)).api:
        assert wait_for(lambda: fleet.greeting("node-1")) == "Hello, Ada, from greet 1.0.0"
    assert up.end(signal.SIGINT) == 0
    assert up.errors.read_text() == ""


def test_bars_in_a_terminal(folder):
    master, slave = pty.openpty()
    words = ["--port", "0", "--nodes", "2", "--data-dir", str(folder / "data")]
    environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-m", "modfleet", "up", *words],
        cwd=ROOT,
        env=environ,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    seen = b""
    try:
        while b"Ctrl-C stops the cluster" not in seen:
            seen += os.read(master, 65536)
    finally:
        process.send_signal(signal.SIGINT)
        while _more(master):
            pass
        assert process.wait(PATIENCE) == 0
        os.close(master)
    assert "━".encode() in seen
    assert b"succeeded" in seen


def _more(master):
    try:
        return os.read(master, 65536)
    except OSError:  # the other end is closed
        return b""


# --- Its end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "number"),
    [("broker.pid", signal.SIGINT), ("api.pid", signal.SIGHUP), ("relay.pid", signal.SIGTERM)],
)
def test_signal_while_it_starts_ends_everything(start, moment, number):
    up = start("--no-sample", "--nodes", "1")
    wait_for((up.folder / "run" / moment).exists, pause=0.001)
    assert up.end(number) == 0
    assert up.errors.read_text() == ""


def test_signal_during_the_sample_ends_everything(start):
    up = start("--nodes", "1")
    up.wait_until_it_says("ready")
    assert up.end(signal.SIGINT) == 0
    assert up.errors.read_text() == ""


def test_second_signal_ends_at_once_what_does_not_end(start):
    up = start("--no-sample", "--nodes", "1")
    agent = Fleet(up).up.pid("node-1-agent")
    os.kill(agent, signal.SIGSTOP)
    up.process.send_signal(signal.SIGINT)
    up.wait_until_it_says("stopping")
    assert up.end(signal.SIGINT) == 0


def test_killed_while_it_starts_it_leaves_nothing(start):
    up = start("--no-sample", "--nodes", "1")
    wait_for((up.folder / "run" / "api.pid").exists, pause=0.001)
    assert up.end(signal.SIGKILL) == -signal.SIGKILL


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_port_in_use(start):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        refused(start("--port", port), f"Port {port} of 127.0.0.1 cannot be used")


def test_folder_of_another_version(start, folder):
    (folder / "data").mkdir()
    (folder / "data" / "version").write_text("0")
    refused(start(), "another version of Modfleet")


def test_no_compiler(start):
    refused(start(environ={"PATH": "/nowhere"}), "No C compiler")


def test_a_compiler_that_fails_ends_nothing(start, folder):
    (folder / "cc").write_text("#!/bin/sh\nexit 1\n")
    (folder / "cc").chmod(0o755)
    up = start("--nodes", "1", environ={"PATH": f"{folder}:{os.environ['PATH']}"})
    up.wait_until_it_says("Ctrl-C")
    assert "The sample is not rolled out: greet.c does not compile" in up.said()
    assert httpx.get(f"{up.url}/v2/nodes", auth=("admin", PASSWORD)).status_code == 200


def test_no_compiler_is_needed_without_the_sample_and_the_folder_is_in_use(start):
    assert start("--no-sample", "--nodes", "0", environ={"PATH": "/nowhere"}).url
    refused(start("--no-sample", "--nodes", "0"), "in use by another `modfleet up`")


def test_socket_path_too_long(start, folder):
    refused(start(name="x" * 100), "Choose a shorter --data-dir")


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_folder_that_cannot_be_written(start, folder, name):
    (folder / "file").write_text("")
    refused(start(name=name), "cannot be used as the data directory")


def test_weak_password(start):
    refused(start(environ={"MODFLEET_ADMIN_PASSWORD": "short"}), "MODFLEET_ADMIN_PASSWORD cannot be used")


def test_damaged_database(start, folder):
    (folder / "data").mkdir()
    (folder / "data" / "modfleet.sqlite3").write_text("no database, " * 100)
    refused(start(), "The database cannot be used")


def test_setting_with_a_wrong_value(start):
    refused(start(environ={"MODFLEET_MAX_UPLOAD_BYTES": "many"}), "MODFLEET_MAX_UPLOAD_BYTES=many")


def test_server_that_does_not_start(start, folder):
    (folder / "data" / "nodes" / "node-1").mkdir(parents=True)
    (folder / "data" / "nodes" / "node-1" / "modules.conf").write_text("no such word\n")
    refused(start("--no-sample", "--nodes", "1"), "node-1-server ended while")


@pytest.mark.parametrize("words", [["--help"], ["up", "--help"]])
def test_help(words):
    shown = subprocess.run([sys.executable, "-m", "modfleet", *words], cwd=ROOT, capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "up" in shown.stdout
