"""`kubectl` without Kubernetes: the first pod of a StatefulSet, as processes in a directory that stands for its volumes.

`Cluster.run` does what a page's `kubectl` commands say. Paths of the manifest become paths in the directory, so both
containers see a shared volume at one path. The pod's user is the caller.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from modfleet.valkey import valkey_server
from tests.containers import environment
from tests.fleet import ROOT
from tests.host import clean
from tests.waiting import wait_for

#: What stands for a container's programs.
PROGRAMS = {
    "modfleet": [sys.executable, "-m", "modfleet"],
    "valkey-server": [str(valkey_server())],
    "valkey-cli": ["redis-cli"],
    "sh": ["sh"],
}


class Cluster:
    """`replaced`: what stands for words of the manifest, in order. `environ`: variables of all containers, besides the
    manifest's. All processes end with `stop`."""

    def __init__(self, root: Path, replaced: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._root = root
        self._more = dict(environ)
        self._replaced = dict(replaced)
        self._secrets: dict[str, Path] = {}
        self._objects: dict[str, dict[str, Any]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, words: list[str], *, cwd: Path) -> str:
        """Do what `kubectl` with these words does; return what it prints."""
        match words:
            case ["create", "secret", "generic", name, option]:
                self._secrets[name] = cwd / option.removeprefix("--from-file=")
            case ["apply", "--filename", file]:
                self._apply(list(yaml.safe_load_all((ROOT / file).read_text())))
            case ["rollout", "status", name]:
                assert name == f"statefulset/{self._set['metadata']['name']}"
                wait_for(lambda: self.keep_running() and self._is_ready())
            case ["delete", "pod", name]:
                assert name == self.pod
                self.stop()
                self._start()
            case ["exec", name, "--container", container, "--", *command]:
                assert name == self.pod
                return self._exec(container, command).stdout
            case _:
                raise AssertionError(f"kubectl {shlex.join(words)}: not known here")
        return ""

    @property
    def pod(self) -> str:
        return f"{self._set['metadata']['name']}-0"

    def path(self, mount: str) -> Path:
        """Return where a path of the containers is."""
        return Path(self._here(mount))

    def log(self, container: str) -> str:
        return (self._root / f"{container}.log").read_text(errors="replace")

    def keep_running(self) -> bool:
        """Start each container that has ended, as Kubernetes does."""
        for name, process in list(self._running.items()):
            if process.poll() is not None:
                self._start_container(name)
        return True

    def kill(self, container: str) -> None:
        self._running[container].kill()
        self._running[container].wait()

    def stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            process.wait()
        self._running.clear()

    # --- Objects ------------------------------------------------------------------------------------------------------

    def _apply(self, documents: list[dict[str, Any]]) -> None:
        self._objects = {each["kind"]: each for each in documents}
        self._start()

    @property
    def _set(self) -> dict[str, Any]:
        return self._objects["StatefulSet"]

    @property
    def _containers(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self._set["spec"]["template"]["spec"]["containers"]}

    def _start(self) -> None:
        for container in self._containers.values():
            for mount in container["volumeMounts"]:
                self._mount(mount)
        for name in self._containers:
            self._start_container(name)

    def _mount(self, mount: Mapping[str, Any]) -> None:
        path = self.path(mount["mountPath"])
        path.mkdir(parents=True, exist_ok=True)
        given = self._set["spec"]["template"]["spec"]["volumes"]
        volume: dict[str, Any] = next((each for each in given if each["name"] == mount["name"]), {})
        if "configMap" in volume:
            data = self._objects["ConfigMap"]
            assert volume["configMap"]["name"] == data["metadata"]["name"]
            for name, text in data["data"].items():
                (path / name).write_text(self._here(text))
        if "secret" in volume:
            for item in volume["secret"]["items"]:
                shutil.copy(self._secrets[volume["secret"]["secretName"]] / item["key"], path / item["path"])

    # --- Containers ---------------------------------------------------------------------------------------------------

    def _here(self, text: str) -> str:
        for there, here in self._replaced.items():
            text = text.replace(there, here)
        mounts = {each["mountPath"] for found in self._containers.values() for each in found["volumeMounts"]} - {"/tmp"}
        tops = "|".join(sorted(map(re.escape, mounts), key=len, reverse=True))
        return re.sub(rf"(?<![\w/.:-])(?:{tops})(?![\w-])", lambda found: f"{self._root}{found[0]}", text)

    def _environ(self, container: str) -> dict[str, str]:
        given = {
            each["name"]: self._here(each["value"]) if "value" in each else self._field(each["valueFrom"])
            for each in self._containers[container].get("env", [])
        }
        is_ours = "modfleet" in self._containers[container]["image"]
        image = environment(ROOT / "deploy/Containerfile", self._root) if is_ours else {}
        return clean() | image | {"PATH": os.environ["PATH"]} | self._more | given

    def _field(self, source: Mapping[str, Any]) -> str:
        assert source == {"fieldRef": {"fieldPath": "metadata.name"}}
        return self.pod

    def _words(self, words: list[str]) -> list[str]:
        program, *rest = words
        return [*PROGRAMS[program], *(self._here(each).replace("valkey-cli", "redis-cli") for each in rest)]

    def _start_container(self, name: str) -> None:
        with (self._root / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._words(self._containers[name]["command"]),
                cwd=ROOT,
                env=self._environ(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _exec(self, container: str, words: list[str]) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            self._words(words), cwd=ROOT, env=self._environ(container), capture_output=True, text=True
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}\n{self.log(container)[-2000:]}"
        return done

    def _is_ready(self) -> bool:
        probes = [
            each["readinessProbe"]["exec"]["command"] for each in self._containers.values() if "readinessProbe" in each
        ]
        assert probes
        return all(subprocess.run(self._words(each), capture_output=True).returncode == 0 for each in probes)
