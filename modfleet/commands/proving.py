"""Carry out `modfleet prove --staging`: record, change the fleet meanwhile, judge, clean up, certify."""

import importlib.metadata
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import redis
from rich.console import Console
from rich.live import Live
from rich.text import Text

import decoding
from modfleet.client import HEAD, ROLLOUTS, RefusedError, UnreachableError, path_to
from modfleet.commands.meanwhile import Rollouts, Servers, is_over, may_pass
from modfleet.commands.session import Session, printable
from modfleet.failure import CommandError, ExitCode, UsageError
from modfleet.proof.certificate import Facts, Head, Run, count_retries, digests, markdown, write
from modfleet.proof.checker import Limits, check
from modfleet.proof.history import Change, Journal, changes_file
from modfleet.proof.staging import Proof, longest_wait, shape
from modfleet.proof.staging_file import SANE_RATE, Staging, read_staging

#: The time between two looks at the histories and the rollouts, seconds.
LOOK_SECONDS = 0.5
#: Outside of a terminal, a line of progress comes so often: seconds.
LINE_SECONDS = 10.0
#: How long a control plane that does not answer is asked again at the end, seconds.
CONTROL_PATIENCE = 60.0
#: How long the user's command may take to end after SIGTERM, seconds.
COMMAND_PATIENCE = 10.0
#: Lines of a failed command that are shown.
LAST_LINES = 5

INTERRUPTED = "Interrupted: no certificate is written. The keys are being deleted; a second Ctrl-C leaves them."

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the user asks for. One of `command`, `rollout` and `minutes` is given."""

    file: Path
    command: list[str]
    rollout: str | None
    minutes: float | None
    #: Seconds.
    baseline: float
    out: Path | None
    seed: int | None


def prove_staging(session: Session, order: Order, *, yes: bool) -> ExitCode:
    """Carry out the proof, print the certificate and return the exit code. Raises: `UsageError` before anything is started."""
    staging = _sane(read_staging(order.file), yes=yes)
    if order.command and shutil.which(order.command[0]) is None:
        raise UsageError(f"{order.command[0]} is not a program that can be found.")
    if order.rollout is not None and is_over(session.api.get(path_to(ROLLOUTS, order.rollout))):
        raise UsageError(f"The rollout {order.rollout} has ended. Start the proof while it is in progress.")
    began = datetime.now(UTC)
    folder = order.out or Path(f"modfleet-proof-{began:%Y%m%dT%H%M%SZ}")
    if folder.exists():
        raise UsageError(f"{folder} exists already. Name a new directory with --out.")
    seed = secrets.randbelow(2**31) if order.seed is None else order.seed
    proof = Proof(staging, folder, seed=seed, run=secrets.token_hex(4))
    notes: list[str] = []
    left: list[str] = []
    with _signals_as_interrupts(), _progress() as progress:
        proof.prepare()
        run_ids = [each.run_id for each in proof.before.servers.values()]
        rollouts = Rollouts(session.api, order.rollout, run_ids=run_ids)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"{folder} cannot be created: {error.strerror}.") from error
        session.note(f"Keys begin with {proof.commands.prefix}. Ctrl-C ends the proof and deletes them.")
        is_interrupted = False
        try:
            is_done = _Recording(session, order, proof, rollouts, progress).run(notes)
            proof.end()
            notes += _reached(lambda: proof.dump(progress.say))
        except KeyboardInterrupt:
            is_interrupted = True
            session.note(INTERRUPTED)
            raise
        finally:
            left = _clean_up(session, proof, progress, is_last=is_interrupted)
        notes += [f"Not deleted: {each}" for each in left]
        run = _judged(session, proof, rollouts, staging, notes, progress)
    is_done = is_done and (order.minutes is not None or bool(run.verdict.changes))
    return _certify(session, folder, run, made_at=f"{began:%Y-%m-%dT%H:%M:%SZ}", is_right=is_done and not left)


def _sane(staging: Staging, *, yes: bool) -> Staging:
    if staging.rate > SANE_RATE and not yes:
        raise UsageError(f"rate: {staging.rate:,} per second is more than {SANE_RATE:,}. --yes accepts that.")
    return staging


def _reached(dump: Callable[[], list[str]]) -> list[str]:
    try:
        return dump()
    except redis.RedisError as error:
        return [f"No server was read at the end: {error}"]


def _clean_up(session: Session, proof: Proof, progress: "Progress", *, is_last: bool) -> list[str]:
    """End the recorders and delete their keys. Return those that are left.

    After the first Ctrl-C, deletion goes on. After the second one, the keys stay. `is_last`: the next Ctrl-C is the second.
    """
    try:
        with suppress(CommandError):  # a recorder that has died: what it has not written down is deleted all the same
            proof.end()
        left = proof.clean_up(progress.say)
    except KeyboardInterrupt:
        if not is_last:
            session.note(INTERRUPTED)
            _clean_up(session, proof, progress, is_last=True)
            raise
        session.note(f"Keys are left: those that begin with {proof.commands.prefix}.")
        raise
    if left:
        session.note(printable(f"Keys are left, {len(left)} in all. Delete them by hand. The first one: {left[0]}"))
    return left


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP as Ctrl-C, so that keys are deleted."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # `nohup` has set SIGHUP to be ignored.
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    former = {each: signal.signal(each, interrupt) for each in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


# --- Recording --------------------------------------------------------------------------------------------------------


class _Recording:
    def __init__(self, session: Session, order: Order, proof: Proof, rollouts: Rollouts, progress: "Progress") -> None:
        self._session, self._order, self._proof = session, order, proof
        self._rollouts, self._progress = rollouts, progress
        self._phases: dict[str, str] = {}

    def run(self, notes: list[str]) -> bool:
        """Record from the baseline before the change to the one after it. Return False if the user's command has failed."""
        self._proof.start()
        if self._order.minutes is not None:
            self._record(time.monotonic() + self._order.minutes * 60, lambda: bool(self._rollouts.running))
            return True
        is_done = True
        if self._order.command:
            self._record(time.monotonic() + self._order.baseline)
            is_done = self._record_command(notes)
        else:
            self._record(time.monotonic(), self._is_in_progress)
        self._record(time.monotonic() + self._order.baseline, lambda: bool(self._rollouts.running))
        return is_done

    def _is_in_progress(self) -> bool:
        return self._order.rollout in self._rollouts.running or self._order.rollout not in self._rollouts.seen

    def _record_command(self, notes: list[str]) -> bool:
        log = self._proof.folder / "command.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - the user's own command
                self._order.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            self._record(time.monotonic(), lambda: process.poll() is None or bool(self._rollouts.running))
        finally:
            if process.poll() is None:
                process.terminate()
            code = _ended(process)
        if code:
            last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
            self._session.note(printable(f"The command ended with exit code {code}: {' / '.join(last)}"))
            notes.append(f"The command ended with exit code {code}. command.log has its output.")
        return code == 0

    def _record(self, due: float, is_busy: Callable[[], bool] = lambda: False) -> None:
        """Look at the histories and the rollouts until `due`, and then as long as `is_busy`."""
        while True:
            was_busy = is_busy()  # a command that ends now may have begun a rollout that the look finds
            self._rollouts.look()
            self._show(due)
            if (left := due - time.monotonic()) <= 0 and not was_busy and not is_busy():
                return
            time.sleep(LOOK_SECONDS if left <= 0 else min(left, LOOK_SECONDS))

    def _show(self, due: float) -> None:
        for uid, seen in self._rollouts.seen.items():
            if self._phases.get(uid) != (phase := seen.rollout["phase"]):
                self._phases[uid] = phase
                self._progress.tell(f"rollout {uid}: {seen.rollout.get('title', '')}: {phase}")
        counted, left = self._proof.count(), max(0.0, due - time.monotonic())
        parts = [f"recording: answered {counted.acknowledged:,}", f"errors {counted.errors:,}"]
        if left:
            parts.append(f"{left:.0f} s left")
        elif running := self._rollouts.running:
            parts.append(f"until rollout {running[0]} has ended")
        if self._rollouts.problem:
            parts.append(f"connection lost, retrying: {self._rollouts.problem}")
        self._progress.say(", ".join(parts))


def _ended(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(COMMAND_PATIENCE)
    except subprocess.TimeoutExpired:  # the keys must be deleted
        process.kill()
        return process.wait()


# --- Verdict ----------------------------------------------------------------------------------------------------------


def _judged(
    session: Session, proof: Proof, rollouts: Rollouts, staging: Staging, notes: list[str], progress: "Progress"
) -> Run:
    progress.say("judging")
    by_run_id = {each.run_id: each.address for each in (*proof.before.servers.values(), *proof.after.servers.values())}
    servers = Servers(by_run_id=by_run_id, before=proof.versions, after=proof.versions_at_the_end)
    changes, more = _patiently(lambda: rollouts.changes(servers, module=proof.commands.module))
    with Journal(changes_file(proof.folder)) as journal:
        for each in changes:
            journal.append(each)
    head, problem = _head(session)
    if not changes:
        more.append("No rollout changed a server meanwhile.")
    verdict = check(proof.folder, Limits(stall_ratio=None, restarted=False))
    quiet = longest_wait(proof.folder, lambda first, last: not _touches(changes, first, last))
    facts = Facts(
        topology=shape(proof.after if proof.after.servers else proof.before),
        servers={each.address: each.release for each in {**proof.before.servers, **proof.after.servers}.values()},
        modules={proof.commands.module: _versions(proof, changes)},
        seed=proof.seed,
        clients=staging.clients,
        retries=count_retries(proof.folder),
        quiet_stall=quiet or None,
        log_head=head,
        files=digests(proof.folder),
        command=f"python -m modfleet.proof {proof.folder} --stall-ratio none --not-restarted",
        notes=[*notes, *more, *problem],
    )
    return Run(f"Staging: {proof.commands.module}", verdict, facts)


def _versions(proof: Proof, changes: list[Change]) -> list[str]:
    """Return the versions that the module had, in the order of the changes."""
    found = [*dict.fromkeys(proof.versions.values())]
    for each in changes:
        if (
            each.module == proof.commands.module
            and not each.is_undone
            and (after := each.after or "removed") != found[-1]
        ):
            found.append(after)
    return found


def _touches(changes: list[Change], first: float, last: float) -> bool:
    return any(each.started_at <= last and first <= each.ended_at for each in changes)


def _head(session: Session) -> tuple[Head | None, list[str]]:
    """Return the head of the log, or why it is not known. An older control plane does not show it."""
    try:
        return _patiently(lambda: decoding.convert(session.api.get(HEAD), Head)), []
    except (RefusedError, UnreachableError) as error:
        return None, [f"The head of the log is not known: {error}"]


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask the control plane, again if it does not answer. Raises: as `ask`, after the patience."""
    due = time.monotonic() + CONTROL_PATIENCE
    while True:
        try:
            return ask()
        except UnreachableError:
            if time.monotonic() > due:
                raise
        except RefusedError as error:
            if not may_pass(error) or time.monotonic() > due:
                raise
        time.sleep(LOOK_SECONDS)


def _certify(session: Session, folder: Path, run: Run, *, made_at: str, is_right: bool) -> ExitCode:
    release = importlib.metadata.version("modfleet")
    made = write(folder, [run], made_at=made_at, release=release)
    if session.as_json:
        session.print_json(made)
    else:
        session.print_file(markdown([run], made_at=made_at, release=release))
    session.note(f"The certificate and the histories are in {folder}.")
    return ExitCode.SUCCEEDED if made["proven"] and is_right else ExitCode.FAILED


# --- Progress ---------------------------------------------------------------------------------------------------------


class Progress:
    """Lines on standard error: standard output has the certificate only. In a terminal, the newest line replaces the last one."""

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._said_at = float("-inf")

    def say(self, line: str) -> None:
        """Show where the proof is now."""
        if self._live is not None:
            self._live.update(Text(printable(line)), refresh=True)
        elif time.monotonic() - self._said_at >= LINE_SECONDS:
            self._said_at = time.monotonic()
            self.tell(line)

    def tell(self, line: str) -> None:
        """Show what has happened."""
        if self._live is not None:
            self._live.console.print(Text(printable(line)))
        else:
            sys.stderr.write(printable(line) + "\n")


@contextmanager
def _progress() -> Iterator[Progress]:
    console = Console(stderr=True, highlight=False, emoji=False, markup=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Progress(None)
        return
    with Live(Text(""), console=console, auto_refresh=False, transient=True) as live:
        yield Progress(live)
