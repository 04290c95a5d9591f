"""The peer: ansible-core does the same to hosts with `connection: local`, so that no ssh is in the way.

What only helps it is done for it: folders are made and the interpreter is named beforehand, facts are not gathered,
pipelining is on, and of several settings for `forks` its best one counts.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import floor

FORKS = (2, 5, 10)

PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"copy": {"src": "{{ package }}", "dest": "{{ folder }}/package.zip"}},
            {"unarchive": {"src": "{{ folder }}/package.zip", "dest": "{{ folder }}/module", "remote_src": True}},
            {
                "stat": {"path": "{{ folder }}/module/{{ module }}", "checksum_algorithm": "sha256"},
                "register": "found",
                "failed_when": "found.stat.checksum != digest",
            },
        ],
    }
]


class Peer:
    """Hosts below `folder`."""

    def __init__(self, folder: Path, *, hosts: int) -> None:
        self._folder = folder
        self._names = [f"host-{number}" for number in range(1, hosts + 1)]
        folder.mkdir(parents=True)
        (folder / "play.json").write_text(json.dumps(PLAY))
        (folder / "ansible.cfg").touch()  # instead of the user's own

    def install(self, package: Path, *, run: str, forks: int) -> float:
        """Seconds per host."""
        targets = {name: self._folder / run / name for name in self._names}
        for target in targets.values():
            (target / "module").mkdir(parents=True)
        module = next(name for name in floor.digests_of_members(package) if name.endswith(".so"))
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "package": str(package),
            "module": module,
            "digest": floor.digests_of_members(package)[module],
        }
        hosts = {name: {"folder": str(target)} for name, target in targets.items()}
        inventory = self._folder / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": shared}}))
        began = time.perf_counter()
        self._run(["-i", str(inventory), "-f", str(forks), str(self._folder / "play.json")])
        took = time.perf_counter() - began
        assert all((target / "module" / module).exists() for target in targets.values())
        return took / len(targets)

    def _run(self, words: Sequence[str]) -> None:
        environ = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self._folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self._folder / "home"),
            "ANSIBLE_REMOTE_TMP": str(self._folder / "tmp"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "LC_ALL": "C.UTF-8",
        }
        program = Path(sys.executable).with_name("ansible-playbook")
        log = self._folder / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [program, *words], env=environ, stdout=file, stderr=file, cwd=self._folder, start_new_session=True
            )
            try:
                code = process.wait()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        assert code == 0, log.read_text()
