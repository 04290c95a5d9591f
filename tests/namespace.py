"""A host of its own for `root`, in a mount namespace: what is written below /etc, /var/lib, /var/log, /usr/lib, /opt and
/run is seen there only, and is lost at the end. systemd does not run in it: a script takes its place.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fleet import ROOT
from tests.host import clean
from tests.waiting import wait_for

SETUP = """
set -eu
umask 022
mount -t tmpfs none /mnt
for each in /etc /var/lib /var/log /usr/lib; do
    mkdir -p "/mnt$each/upper" "/mnt$each/work"
    mount -t overlay overlay -o "lowerdir=$each,upperdir=/mnt$each/upper,workdir=/mnt$each/work" "$each"
done
mount -t tmpfs none /opt
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/units /opt/programs /opt/python /opt/modfleet
mount --bind "$PYTHON" /opt/python
if [ "$INSTALLED" ]; then
    mount --bind "$INSTALLED" /opt/modfleet
else
    mkdir /opt/modfleet/checkout /opt/modfleet/site
    mount --bind "$CHECKOUT" /opt/modfleet/checkout
    mount --bind "$SITE" /opt/modfleet/site
fi
# The agent's user cannot enter the home directory of this user, where this Python may be.
case "$PYTHON" in "$HOME_DIRECTORY"/*)
    mount -t tmpfs -o mode=755 none "$HOME_DIRECTORY"
    mkdir -p "$PYTHON"
    mount --bind /opt/python "$PYTHON"
esac
[ "$INSTALLED" ] || "/opt/python/bin/$PROGRAM" -m venv --without-pip /opt/modfleet
"""

#: Starts what a unit says, as its user: `enable --now`, `restart`, `disable --now`, `is-active`, `is-enabled`. A unit with
#: `NoExecPaths=/` can execute only what is below its `ExecPaths`. A start waits for READY=1 if the unit sends it.
SYSTEMCTL = """#!/opt/python/bin/python3
import contextlib, os, pathlib, shlex, signal, socket, subprocess, sys, time

verb = [each for each in sys.argv[1:] if not each.startswith("--")][0]
unit = sys.argv[-1].removesuffix(".service") + ".service"
running = pathlib.Path("/run/units", unit)

def stop():
    if running.exists():
        pid = int(running.read_text())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
        while pathlib.Path(f"/proc/{pid}/status").exists() and "\\nState:\\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.02)
        running.unlink()

def start():
    template, at, instance = unit.removesuffix(".service").partition("@")
    base, name = pathlib.Path("/etc/systemd/system"), f"{template}{at}.service"
    file = base / name if (base / name).exists() else pathlib.Path("/lib/systemd/system", name)
    files = [file, *sorted((base / f"{unit}.d").glob("*.conf"))]
    lines = [line.split("=", 1) for file in files for line in file.read_text().replace("%i", instance).splitlines()
             if "=" in line and line[0] != "#"]
    given = lambda key: [value for name, value in lines if name == key]
    env = dict(each.split("=", 1) for each in given("Environment"))
    for file in given("EnvironmentFile"):
        env |= dict(each.split("=", 1) for each in shlex.split(pathlib.Path(file).read_text(), comments=True))
    groups = ["--groups", ",".join(given("SupplementaryGroups"))] if given("SupplementaryGroups") else ["--clear-groups"]
    user = ["setpriv", f"--reuid={given('User')[-1]}", f"--regid={given('Group')[-1]}", *groups, "--no-new-privs"]
    command = [*user, *shlex.split(given("ExecStart")[-1])]
    for each in given("RuntimeDirectory"):
        subprocess.run(["install", "-d", "-o", given("User")[-1], "-g", given("Group")[-1], f"/run/{each}"], check=True)
    if given("NoExecPaths") == ["/"]:
        command = confined(command, " ".join(given("ExecPaths")).split())
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if given("Type") == ["notify"]:
        env["NOTIFY_SOCKET"] = f"/run/{unit}.notify"
        pathlib.Path(env["NOTIFY_SOCKET"]).unlink(missing_ok=True)
        ready.bind(env["NOTIFY_SOCKET"])
        os.chmod(env["NOTIFY_SOCKET"], 0o666)
    with open(f"/run/{unit}.log", "ab") as log:
        process = subprocess.Popen(
            command, cwd=(given("WorkingDirectory") or ["/"])[-1], stdout=log, stderr=log,
            umask=int((given("UMask") or ["022"])[-1], 8),
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **env}, start_new_session=True, stdin=subprocess.DEVNULL)
    running.write_text(str(process.pid))
    ready.settimeout(0.1)
    while given("Type") == ["notify"] and process.poll() is None:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in ready.recv(4096):
                break
    if process.poll() is not None:
        sys.exit(1)
    pathlib.Path(f"/run/{unit}.cgroup").write_text(f"0::/system.slice/{unit}\\n")
    subprocess.run(["mount", "--bind", f"/run/{unit}.cgroup", f"/proc/{process.pid}/cgroup"], check=True)

def confined(command, paths):
    # Nothing else can be executed afterwards, so `/` comes last.
    paths = [os.path.realpath(each) for each in paths]
    mounts = {line.split()[4] for line in open("/proc/self/mountinfo")}
    closed = [each for each in sorted(mounts, reverse=True)
              if not any(each == path or each.startswith(f"{path}/") for path in [*paths, "/proc", "/sys", "/dev"])]
    opened = [each for each in [*paths, "/usr/bin/setpriv"] if each not in mounts]
    script = [f"mount --rbind {each} {each}; mount -o remount,bind,exec {each}" for each in opened]
    script += [f"mount -o remount,bind,noexec {shlex.quote(each)} || true" for each in closed]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "; ".join([*script, f"exec {shlex.join(command)}"])]

match verb:
    case "enable":
        running.exists() or start()
    case "restart":
        stop(), start()
    case "disable":
        stop()
    case "is-active" | "is-enabled":
        sys.exit(0 if running.exists() else 3)
    case "show":
        sys.exit(1)
"""

PROGRAM = "#!/opt/modfleet/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"


class Namespace:
    """A running namespace, entered with `run`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def words(self, *words: str) -> list[str]:
        """Return the command that runs these words in the namespace."""
        return ["nsenter", f"--mount=/proc/{self._pid}/ns/mnt", "--", *words]

    def run(self, script: str, *, cwd: Path | str = "/", **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run a script of bash as root. /opt/modfleet/bin and the script for systemctl are in its PATH."""
        path = f"/opt/programs:/opt/modfleet/bin:{os.environ['PATH']}"
        entered = f"umask 022; cd {shlex.quote(str(cwd))}; {script}"
        return subprocess.run(
            self.words("bash", "-euo", "pipefail", "-c", entered),
            env=clean() | {"PATH": path} | environ,
            capture_output=True,
            text=True,
        )

    def read(self, path: str) -> str:
        done = self.run(f"cat {shlex.quote(path)}")
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def namespace(installed: Path | None = None) -> Iterator[Namespace]:
    """Needs root, and a kernel that allows mounts. `installed` is used as /opt/modfleet; by default, that is the checkout."""
    assert os.geteuid() == 0, "this test mounts file systems, so it needs root"
    assert shutil.which("unshare"), "this test needs unshare and nsenter of util-linux"
    # Mounted again, because the agent's user may not be able to enter the directories above them.
    environ = {"CHECKOUT": str(ROOT), "SITE": sysconfig.get_path("purelib"), "PYTHON": sys.base_prefix}
    environ["INSTALLED"] = str(installed or "")
    environ["HOME_DIRECTORY"] = str(Path.home())
    environ["PROGRAM"] = Path(sys.executable).resolve().name
    script = f"{SETUP}\necho ready\nexec sleep infinity"
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        env=clean() | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        made = Namespace(process.pid)
        _write(made, {"/opt/programs/systemctl": SYSTEMCTL} | ({} if installed else _checkout()))
        try:
            yield made
        finally:  # what a failed test has started too
            made.run("for each in /run/units/*; do [ ! -e $each ] || systemctl disable --now ${each##*/} || true; done")
    finally:
        process.kill()
        process.communicate()


def _checkout() -> dict[str, str]:
    """Return the files that make an installation of the checkout, with the packages that it is developed with."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "/opt/modfleet/bin/modfleet": PROGRAM.format(module="modfleet.__main__"),
        "/opt/modfleet/bin/celery": PROGRAM.format(module="celery.__main__"),
        f"/opt/modfleet/lib/python{version}/site-packages/checkout.pth": "/opt/modfleet/checkout\n/opt/modfleet/site\n",
    }


def _write(made: Namespace, files: dict[str, str]) -> None:
    for path, text in files.items():
        words = made.words("sh", "-c", f"cat > {path}; chmod 755 {path}")
        subprocess.run(words, input=text, text=True, check=True)


class DebianRedis:
    """Debian's redis-server as its package configures it, on /run/redis/redis.sock, as the user redis."""

    SOCKET = "/run/redis/redis.sock"

    def __init__(self, host: Namespace) -> None:
        self._host = host
        done = host.run(
            "install -d -m 2755 -o redis -g redis /run/redis\n"
            f"printf 'port 0\\nunixsocket {self.SOCKET}\\nunixsocketperm 770\\nlogfile \"\"\\n' >> /etc/redis/redis.conf"
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        user = "setpriv --reuid=redis --regid=redis --clear-groups"
        script = f"exec {user} redis-server /etc/redis/redis.conf --daemonize no > /run/redis.log 2>&1"
        started = self._process = subprocess.Popen(self._host.words("sh", "-c", script))
        wait_for(lambda: self.call("PING") == "PONG\n" or started.poll() is not None)
        assert started.poll() is None, self._host.read("/run/redis.log")

    def call(self, *words: str) -> str:
        return self._host.run(f"redis-cli -s {self.SOCKET} {shlex.join(words)}").stdout

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextmanager
def debian_redis(host: Namespace) -> Iterator[DebianRedis]:
    made = DebianRedis(host)
    made.start()
    try:
        yield made
    finally:
        made.stop()
