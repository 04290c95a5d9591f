"""A host with its own users and mounts, in namespaces, for tests that run as any user. The user of the test is root there.
Files that are written below /etc, /var/lib, /var/log, /usr/lib, /opt and /run are visible only there, and are lost at the
end. systemd does not run in it: a script takes its place. The network is this machine's, because the control plane and the
broker of a test listen on its loopback.
"""

import os
import pwd
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
mount -t tmpfs -o mode=755 none /mnt
mkdir -p /mnt/var/lib /mnt/var/log /mnt/usr/lib /mnt/work
# A copy, because in an overlay the owner of this machine's files may have no id here, and then root cannot change them.
# The test's user cannot read all of /etc.
cp --recursive --no-dereference --preserve=mode /etc /mnt 2> /dev/null || true
rm -f /mnt/etc/*.lock  # of a program that was changing this machine's users
for each in /etc /var/lib /var/log; do
    mount --bind "/mnt$each" "$each"
done
mount -t overlay overlay -o lowerdir=/usr/lib,upperdir=/mnt/usr/lib,workdir=/mnt/work /usr/lib
install -d -m 2770 -o redis -g redis /etc/redis
install -d -m 750 -o redis -g redis /var/lib/redis
install -d -m 2750 -o redis -g adm /var/log/redis
[ -e /etc/redis/redis.conf ] || printf "%s" "$REDIS_CONF" > /etc/redis/redis.conf
chown redis:redis /etc/redis/redis.conf
chmod 640 /etc/redis/redis.conf
mkdir -p /mnt/opt/programs /mnt/opt/python /mnt/opt/modfleet
mount --bind "$PYTHON" /mnt/opt/python
if [ "$INSTALLED" ]; then
    mount --bind "$INSTALLED" /mnt/opt/modfleet
else
    mkdir /mnt/opt/modfleet/checkout /mnt/opt/modfleet/site
    mount --bind "$CHECKOUT" /mnt/opt/modfleet/checkout
    mount --bind "$SITE" /mnt/opt/modfleet/site
fi
mount --rbind /mnt/opt /opt
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/units
# The agent's user cannot enter the home directory of this user, where this Python may be.
case "$PYTHON" in "$HOME_DIRECTORY"/*) mount -t tmpfs -o mode=755 none "$HOME_DIRECTORY" ;; esac
[ -e "$PYTHON" ] || { mkdir -p "$PYTHON" && mount --bind /opt/python "$PYTHON"; }
[ "$INSTALLED" ] || "/opt/python/bin/$PROGRAM" -m venv --without-pip /opt/modfleet
"""

#: The settings of Debian's redis.conf, without those that repeat the defaults. Only root and redis can read that file.
REDIS_CONF = """\
bind 127.0.0.1 -::1
port 6379
daemonize yes
pidfile /run/redis/redis-server.pid
logfile /var/log/redis/redis-server.log
dir /var/lib/redis
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

PACKAGES = {"unshare": "util-linux", "newuidmap": "uidmap", "redis-server": "redis-server"}

PROGRAM = "#!/opt/modfleet/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"


class Namespace:
    """A running namespace, entered with `run`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def words(self, *words: str) -> list[str]:
        """Return the command that runs these words in the namespace."""
        namespaces = f"/proc/{self._pid}/ns"
        return ["nsenter", f"--user={namespaces}/user", f"--mount={namespaces}/mnt", "--", *words]

    def do(self, script: str, *, cwd: Path | str = "/") -> str:
        """Run a script that must succeed. Return what it prints."""
        done = self.run(script, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr + self.run("cat /run/*.log").stdout
        return done.stdout

    def run(self, script: str, *, cwd: Path | str = "/", **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run a script of bash as root. /opt/modfleet/bin and the script for systemctl are in its PATH."""
        path = f"/opt/programs:/opt/modfleet/bin:{os.environ['PATH']}:/usr/sbin"  # a user's PATH may lack useradd
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
    """Needs a kernel that allows user namespaces. `installed` is used as /opt/modfleet; by default, that is the checkout."""
    for program, package in PACKAGES.items():
        assert shutil.which(program), f"this test needs {program} of the package {package}"
    # Mounted again, because the agent's user may not be able to enter the directories above them.
    environ = {"CHECKOUT": str(ROOT), "SITE": sysconfig.get_path("purelib"), "PYTHON": sys.base_prefix}
    environ["INSTALLED"] = str(installed or "")
    environ["HOME_DIRECTORY"] = str(Path.home())
    environ["PROGRAM"] = Path(sys.executable).resolve().name
    environ["REDIS_CONF"] = REDIS_CONF
    # The shell waits and executes no other program. A program that starts while its users are mapped gains rights, and Linux
    # then closes its files in /proc to newgidmap.
    process = subprocess.Popen(
        ["unshare", "--user", "--mount", "--propagation=private", "sh", "-c", "echo made; read end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "made\n", f"this test needs user namespaces: {process.stderr.read()}"
        _map_users(process.pid)
        made = Namespace(process.pid)
        done = made.run(SETUP, **environ)
        assert done.returncode == 0, done.stderr
        lacking = set(REDIS_CONF.splitlines()) - set(made.read("/etc/redis/redis.conf").splitlines())
        assert not lacking, f"Debian's redis.conf lacks {lacking}"
        _write(made, {"/opt/programs/systemctl": SYSTEMCTL} | ({} if installed else _checkout()))
        try:
            yield made
        finally:  # what a failed test has started too
            made.run("for each in /run/units/*; do [ ! -e $each ] || systemctl disable --now ${each##*/} || true; done")
    finally:
        process.kill()
        process.communicate()


def _map_users(pid: int) -> None:
    """Map the user of the test to root, and its subordinate ids to the other users. If it is root, map each id to itself."""
    user = pwd.getpwuid(os.geteuid())
    for kind, own in (("uid", user.pw_uid), ("gid", user.pw_gid)):
        if user.pw_uid == 0:
            Path(f"/proc/{pid}/{kind}_map").write_text("0 0 65536\n")
            continue
        ranges = [line.split(":") for line in Path(f"/etc/sub{kind}").read_text().splitlines()]
        found = [(first, count) for name, first, count in ranges if name in {user.pw_name, str(user.pw_uid)}]
        how = f"usermod --add-sub{kind}s 100000-165535 {user.pw_name}"
        assert found, f"this test needs a range of ids in /etc/sub{kind}. As root: {how}"
        subprocess.run([f"new{kind}map", str(pid), "0", str(own), "1", "1", *found[0]], check=True)


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
