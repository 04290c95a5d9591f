"""A process that runs commands in agents of its own. Each is killed before its n-th step, or its disk is full from there on.

A step is a change of a file or a directory, or a command that changes the server: before it is sent, and before its answer is
read. A line of standard input is a request, a line of standard output the steps until the end.
"""

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rollout.agent.module_files import module_store
from rollout.agent.operations.runner import Runner
from rollout.agent.server.session import Session
from rollout.agent.settings import settings_from
from rollout.messages import Command, from_json

log = logging.getLogger(__name__)

CHANGES = frozenset({"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"})
COMMANDS = (("MODULE", "LOAD"), ("MODULE", "UNLOAD"), ("CONFIG", "REWRITE"), ("CONFIG", "SET"), ("BGREWRITEAOF",))
#: Steps that need space on the disk.
GROWS = ("open", "fsync", "os.mkdir", "os.link")


class Steps:
    """Counts the steps. At number `last`, counted from 1, this process is killed, or its disk is full."""

    def __init__(self, root: str, last: int, pipe: int, *, fills: bool) -> None:
        self._root, self._last, self._pipe, self._fills = root, last, pipe, fills
        self._count = 0

    def add(self, words: str) -> None:
        self._count += 1
        os.write(self._pipe, f"{words.replace(self._root, '')}\n".encode())
        if self._count == self._last and not self._fills:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fills and self._last and self._count >= self._last and words.startswith(GROWS):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), words)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in CHANGES and not (event == "open" and _is_new(*args)):
            return
        path = str(args[0])
        if not path.startswith("/") or path.startswith(self._root):  # relative to an open directory, or ours
            self.add(f"{event} {path}")


def _is_new(path: Any, mode: Any, flags: Any) -> bool:
    """Return True if a file is opened that does not exist: no other one is written here."""
    return isinstance(path, str) and isinstance(flags, int) and bool(flags & os.O_CREAT) and not Path(path).exists()


def watch(steps: Steps) -> None:
    """Make a step of what Python does not audit: fsync, the exchange of two names, and commands to the server."""
    _before(os, "fsync", steps)
    _before(module_store, "exchange_names", steps)
    for name in ("call", "swap", "unload_and_count"):
        _around(name, steps)
    sys.addaudithook(steps.audit)


def _before(owner: Any, name: str, steps: Steps) -> None:
    former = getattr(owner, name)

    def called(*args: Any) -> Any:
        steps.add(name)
        return former(*args)

    setattr(owner, name, called)


def _around(name: str, steps: Steps) -> None:
    former: Callable[..., Any] = getattr(Session, name)

    def called(session: Session, *args: Any) -> Any:
        words = " ".join([name, *map(str, args)])
        is_change = name != "call" or any(args[: len(each)] == each for each in COMMANDS)
        if is_change and "modfleet:none" not in args:
            steps.add(f"before {words}")
            try:
                return former(session, *args)
            finally:
                steps.add(f"after {words}")
        return former(session, *args)

    setattr(Session, name, called)


def run(request: Any, pipe: int) -> None:
    """Start an agent, let it send a heartbeat, carry out the command, and send another one."""
    watch(Steps(request["root"], request["last"], pipe, fills=request["fills"]))
    runner = Runner(settings_from(request["environ"]))
    with suppress(OSError):
        runner.recover()
    runner.heartbeat(hello=False)
    if request["command"]:
        report = runner.execute(from_json(Command, request["command"]), report=lambda _: None)
        assert report
        os.write(pipe, f"= {report.phase} {report.reason} {report.message}\n".encode())
        runner.heartbeat(hello=False)


def main() -> None:
    for line in sys.stdin:
        read, write = os.pipe()
        agent = os.fork()
        if agent == 0:
            os.close(read)
            os.dup2(2, 1)
            status = 1
            try:
                run(json.loads(line), write)
                status = 0
            except Exception:  # the agent's outermost loop
                log.exception("The agent failed")
            finally:
                os._exit(status)
        os.close(write)
        with os.fdopen(read) as pipe:
            steps = pipe.read().splitlines()
        _, waited = os.waitpid(agent, 0)
        answer = {"steps": steps, "status": os.waitstatus_to_exitcode(waited)}
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
