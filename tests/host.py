"""A host without systemd and without root: a folder that stands for its file system, and the services that run there.

What a page shows is run as it is written, with paths of the system and names of other machines replaced. `useradd`,
`chgrp` and `runuser` change no user here; `systemctl` notes which services to start, and `Host.start_services` reads
their units and starts what they say.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.fleet import ROOT
from tests.waiting import PATIENCE

UV = str(Path(sys.executable).with_name("uv"))
SYSTEM = ("/opt/modfleet", "/etc/modfleet", "/etc/systemd/system", "/var/lib/modfleet")
SHIMS = {
    "useradd": "exit 0",
    "chgrp": "exit 0",
    "runuser": 'shift 3; exec "$@"',  # -u USER --
    "install": (
        'words=(); while (($#)); do case $1 in -o|-g|--owner|--group) shift 2;; *) words+=("$1"); shift;; esac; done\n'
        'exec /usr/bin/install "${words[@]}"'
    ),
    # The same as venv and pip, in seconds: uv links files where pip copies and compiles them.
    "python3": (
        '[[ "$1 $2" == "-m venv" ]] || exit 1\n'
        '"$UV" venv --quiet --python "$PYTHON" "$3"\n'
        'printf \'#!/bin/sh\\nexec "%s" pip "$@" --python "%s"\\n\' "$UV" "$3" > "$3/bin/pip"; chmod +x "$3/bin/pip"'
    ),
    "docker": 'PYTHONPATH="$CHECKOUT" exec "$PYTHON" -m tests.containers "$@"',
    "systemctl": 'shift 2; printf "%s\\n" "$@" >> "$SERVICES"',  # enable --now SERVICE...
}


def blocks(page: Path, mark: str) -> str:
    """The page's blocks of shell after `<!-- mark -->`, as one script."""
    found = re.findall(rf"^<!-- {mark} -->\n```sh\n(.*?)^```\n", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found, mark
    return "".join(found)


class Host:
    """`replaced`: what stands for other machines' names, in order. `pip`: install with pip itself, which is slow.

    All that is started here ends with `stop`.
    """

    #: The certificate of its proxy's authority, if it has a proxy.
    authority: Path | None = None

    def __init__(self, root: Path, replaced: Mapping[str, str], *, pip: bool = False) -> None:
        self.root = root
        self.replaced = {**replaced, **{each: f"{root}{each}" for each in SYSTEM}}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._services = root / "services"
        for each in ("etc/systemd/system", "var/lib", "bin", "log"):
            (root / each).mkdir(parents=True)
        for name, script in SHIMS.items():
            if name != "python3" or not pip:
                path = root / "bin" / name
                path.write_text(f"#!/bin/bash\n{script}\n")
                path.chmod(0o755)

    def here(self, text: str) -> str:
        for there, here in self.replaced.items():
            text = text.replace(there, here)
        return text

    def paste(self, script: str, *, cwd: Path, **environ: str) -> str:
        """What the script prints."""
        shims = {
            "PATH": f"{self.root / 'bin'}:{Path(UV).parent}:{os.environ['PATH']}",
            "SERVICES": str(self._services),
            "UV": UV,
            "PYTHON": sys.executable,
            "CHECKOUT": str(ROOT),
            "ROOT": str(self.root),
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(script)],
            cwd=cwd,
            env=clean() | shims | environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def start_services(self) -> None:
        """Those that `systemctl` was asked to start. systemd gives a service nothing of the caller's environment."""
        for name in self._services.read_text().split():
            template, _, instance = name.partition("@")
            unit = self.root / "etc/systemd/system" / (f"{template}@.service" if instance else f"{name}.service")
            self._start(name, section(self.here(unit.read_text()).replace("%i", instance)))

    def _start(self, name: str, unit: Mapping[str, list[str]]) -> None:
        credentials = self.root / "run/credentials" / name
        credentials.mkdir(parents=True)
        for each in unit.get("LoadCredential", []):
            key, path = each.split(":", 1)
            (credentials / key).write_bytes(Path(path).read_bytes())
        given = [each.replace("%d", str(credentials)) for each in unit.get("Environment", [])]
        for path in unit["EnvironmentFile"]:  # after `Environment`: what it says counts
            given += shlex.split(Path(path).read_text(), comments=True)
        Path(unit["WorkingDirectory"][-1]).mkdir(parents=True, exist_ok=True)
        self.start(
            name,
            shlex.split(unit["ExecStart"][-1]),
            cwd=unit["WorkingDirectory"][-1],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **dict(each.split("=", 1) for each in given)},
        )

    def start(self, name: str, words: list[str], *, cwd: Path | str, env: Mapping[str, str]) -> None:
        with (self.root / "log" / name).open("wb") as log:
            self.running[name] = subprocess.Popen(
                words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def log(self, name: str) -> str:
        return (self.root / "log" / name).read_text(errors="replace")

    def assert_all_run(self) -> None:
        for name, process in self.running.items():
            assert process.poll() is None, f"{name} ended: {self.log(name)[-2000:]}"

    def stop(self) -> None:
        for process in reversed(self.running.values()):
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def clean() -> dict[str, str]:
    """The environment without settings of ours, and without what makes the checkout importable."""
    ours = ("MODFLEET_", "DJANGO_", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def section(text: str) -> dict[str, list[str]]:
    """[Service] of a unit: each key with all of its values."""
    values: dict[str, list[str]] = {}
    for line in text.split("[Service]")[1].split("[Install]", maxsplit=1)[0].splitlines():
        if line and not line.startswith("#"):
            key, value = line.split("=", 1)
            values.setdefault(key, []).append(value)
    return values
