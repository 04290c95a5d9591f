"""What the server needs: a user for the agent, an `include` line, and `enable-module-command`. The server is never restarted."""

import glob
import json
import os
import re
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from modfleet.enrol.host import AGENT_USER, Host
from modfleet.enrol.layout import server_drop_in
from modfleet.enrol.rights import LOAD, OBSERVE, PROBES, RESTART, SERVER_USER, probes, rules, writes_lines
from modfleet.enrol.server import FoundServer, Login, session
from modfleet.enrol.steps import Steps
from modfleet.failure import CommandError
from rollout.agent.failure import Failure
from rollout.agent.inspection.configuration import MOST_BYTES
from rollout.agent.inspection.regular_file import open_regular, read_secret
from rollout.agent.inspection.systemd import forbids_execution
from rollout.agent.module_files.include import quoted
from rollout.agent.server.observation import has_atomic_migrations
from rollout.agent.server.session import RefusedError, Session

POLKIT = """polkit.addRule(function (action, subject) {{
    if (action.id == "org.freedesktop.systemd1.manage-units" && action.lookup("unit") == {unit} &&
        action.lookup("verb") == "start" && subject.user == {user}) {{
        return polkit.Result.YES;
    }}
}});"""
NEXT_RESTART = "this acts at the server's next restart"


class AtServer:
    """Prints what a person must do at the server; does it if `yes`. `rights` are the agent's, `owner` that of the lines."""

    def __init__(
        self, found: FoundServer, host: Host, steps: Steps, *, rights: frozenset[str], owner: str, yes: bool
    ) -> None:
        self._found = found
        self._host = host
        self._steps = steps
        self._rights = rights
        self._owner = owner
        self._yes = yes
        #: Files of which this run has kept a copy.
        self._copied: set[Path] = set()
        #: Files outside `--root`.
        self._outside: set[str] = set()

    def user(self, name: str, password_file: Path) -> None:
        """Ensure the server's user of the agent, with its rights, now and after a restart."""
        rules = self._rules(password_file)
        is_live = self._has_user(Login(user=name, password_file=password_file))
        if is_live:
            self._steps.unchanged(f"user {name} of the server")
        elif name != SERVER_USER:
            self._steps.by_you(f"give the user {name} of the server these rights", rules)
            return
        elif self._yes and self._set_user(rules):
            is_live = True
        else:
            self._steps.by_you("create the server's user of the agent", f"ACL SETUSER {name} reset {rules}")
        if name == SERVER_USER:
            self._keep_user(rules, is_live=is_live)

    def socket(self) -> None:
        """Ensure that another user than the server's own may connect to its socket."""
        if self._found.only_for_itself() and self._host.has_units:
            self._add_line("unixsocketperm 770")

    def modules(self, directory: str) -> None:
        """Ensure that the server can load modules from `directory`, and loads them at a start."""
        if LOAD not in self._rights:
            return
        if writes_lines(self._rights, self._owner):
            self._enable()
        self._execute(directory)
        if self._owner == "include":
            self._include(directory)

    def restart(self, way: str, node: str) -> None:
        """Say how the agent may start the server's unit, if its settings say that it does (MODFLEET_RESTART)."""
        if way != "systemd" or RESTART not in self._rights:
            return
        if not self._found.unit:
            self._steps.note(
                "MODFLEET_RESTART is systemd, but no unit of the server was found. Set MODFLEET_SERVER_UNIT"
            )
            return
        file = f"/etc/polkit-1/rules.d/50-modfleet-{node}.rules"
        self._steps.by_you(
            f"let the agent start {self._found.unit}: put this into {file}", polkit_rule(self._found.unit)
        )

    # --- User ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def _digest(password_file: Path) -> str:
        return sha256(read_secret(password_file).encode()).hexdigest()

    def _rules(self, password_file: Path) -> str:
        info = {f"{self._found.kind}_version": self._found.version}
        return rules(
            sorted(self._rights),
            self._owner,
            self._digest(password_file),
            has_atomic_migrations=has_atomic_migrations(info),
        )

    def _has_user(self, login: Login) -> bool:
        """Return True if the user can log in and has its rights. An unknown right counts as missing."""
        if not self._may_exist(login.user):
            return False
        try:
            with session(self._found.url, login) as own:
                return all(self._may(own, login.user, each) for each in probes(self._rights, self._owner))
        except (Failure, RefusedError, OSError):
            return False

    def _may_exist(self, user: str) -> bool:
        """Return False if there is no such user: a failed login would be recorded in the server's ACL LOG."""
        try:
            with session(self._found.url, self._found.login) as asked:
                return asked.call("ACL", "GETUSER", user) is not None
        except (Failure, RefusedError, OSError):
            return True

    def _may(self, own: Session, user: str, command: tuple[str, ...]) -> bool:
        try:
            with session(self._found.url, self._found.login) as asked:
                return str(asked.call("ACL", "DRYRUN", user, *command)) == "OK"
        except (Failure, RefusedError, OSError):
            return command == PROBES[OBSERVE] or self._is_queued(login_session=own, command=command)

    @staticmethod
    def _is_queued(login_session: Session, command: tuple[str, ...]) -> bool:
        """Return True if the server would execute the command. The transaction ends with the connection, without EXEC."""
        try:
            login_session.call("MULTI")
            return str(login_session.call(*command)) == "QUEUED"
        except RefusedError:
            return False

    def _set_user(self, rules: str) -> bool:
        try:
            with session(self._found.url, self._found.login) as admin:
                admin.call("ACL", "SETUSER", SERVER_USER, "reset", *rules.split())
        except (Failure, RefusedError) as error:
            self._steps.note(f"the server refused ACL SETUSER: {str(error).rstrip('.')}")
            return False
        self._steps.done(f"user {SERVER_USER} of the server")
        return True

    def _keep_user(self, rules: str, *, is_live: bool) -> None:
        """Put the user's line into the file of users, or into the main file if there is none."""
        line = f"user {SERVER_USER} {rules}"
        aclfile = self._found.aclfile if self._found.aclfile is not None else self._configured("aclfile")
        name = aclfile or self._found.config_file
        if name and _has_user_line(Path(name), rules):
            self._steps.unchanged(f"line `user {SERVER_USER} ...` in {name}")
        elif name and self._yes and is_live and (path := self._editable(name)):
            self._edit(path, line, replacing=rf"\s*user\s+{SERVER_USER}\s.*")
            self._steps.done(f"line `user {SERVER_USER} ...` in {name}")
        elif name and _user_lines(Path(name)):
            # The server does not start with two lines of one user.
            what = f"keep this user over a restart: replace the line `user {SERVER_USER} ...` in {name} by this one"
            self._steps.by_you(what, line)
        else:
            where = name or "the server's ACL file or configuration file"
            self._steps.by_you(f"keep this user over a restart: put this line into {where}", line)

    # --- Modules ------------------------------------------------------------------------------------------------------

    def _enable(self) -> None:
        line = "enable-module-command local"
        if self._found.enable_module_command in {"yes", "local"}:
            self._steps.unchanged("enable-module-command")
        elif self._configured("enable-module-command") in {"yes", "local"}:
            self._steps.unchanged(f"enable-module-command ({NEXT_RESTART})")
        else:
            self._add_line(line)

    def _configured(self, name: str) -> str | None:
        return self._found.configuration.last(name) if self._found.configuration else None

    def _execute(self, directory: str) -> None:
        unit = self._found.unit
        if unit is None or not forbids_execution(self._found.unit_settings, directory):
            return
        text = f"# Written by `modfleet agent install`.\n[Service]\nExecPaths={directory}\n"
        path = server_drop_in(unit)
        if not self._host.has_units:
            self._steps.by_you(f"allow {unit} to load modules: put this into {path}; {NEXT_RESTART}", *text.split("\n"))
            return
        changed = self._host.write(path, text.encode(), mode=0o644)
        if changed:
            self._host.reload_units()
        self._steps.step(changed, f"{path} allows {unit} to load modules from {directory} ({NEXT_RESTART})")

    def _include(self, directory: str) -> None:
        pattern = f"{glob.escape(directory)}/*.conf"
        found = self._found.configuration
        if found and any(each.words[1:] == (pattern,) for each in found.all("include")):
            self._steps.unchanged(f"include {pattern}")
        else:
            self._add_line(f"include {quoted(pattern)}")

    def _add_line(self, line: str) -> None:
        path = self._editable(self._found.config_file)
        if self._yes and path is not None:
            self._steps.step(self._edit(path, line), f"line `{line}` in {path} ({NEXT_RESTART})")
        else:
            where = self._found.configuration.file if self._found.configuration else "the server's configuration file"
            self._steps.by_you(f"put this line at the end of {where}; {NEXT_RESTART}", line)

    def _editable(self, name: str | None) -> Path | None:
        """Return the file with this name if it may be edited, else None. If only `--root` forbids it, say so once.

        The server names its files. It could name a file that only root may write: so the file must belong to the server's
        user, or the server's unit must name it too.
        """
        if name is None:
            return None
        path, process = self._host.editable(name), self._found.process
        if path is None and self._yes and Path(name).is_file() and name not in self._outside:
            self._outside.add(name)
            self._steps.note(f"--yes does not change {name}: it is outside --root {self._host.root}")
        if path is None or process is None or path.is_symlink():
            return None
        return path if self._may_edit(path, path.stat()) else None

    def _may_edit(self, path: Path, found: os.stat_result) -> bool:
        process, named = self._found.process, self._found.unit_settings.get("ExecStart", "").split()
        return stat.S_ISREG(found.st_mode) and (
            (process is not None and found.st_uid == process.uid) or str(path) in named
        )

    def _edit(self, path: Path, line: str, replacing: str | None = None) -> bool:
        """Add `line` at the end of the file, without the lines that match `replacing`. Return True if the file changed.

        The file keeps its owner, mode and inode. The first change keeps a copy of the former file. The server's user may
        own the directory and replace names in it at any time: so no link is followed, and the open file is checked.
        Raises: `CommandError`.
        """
        with os.fdopen(self._opened(path), "r+", errors="surrogateescape", newline="") as file:
            former = file.read()
            kept = [each for each in former.splitlines() if not (replacing and re.fullmatch(replacing, each))]
            text = "".join(f"{each}\n" for each in [*kept, line])
            if text == former:
                return False
            if path not in self._copied:
                _back_up(path, former, os.fstat(file.fileno()))
                self._copied.add(path)
            file.seek(0)
            file.write(text)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        return True

    def _opened(self, path: Path) -> int:
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CommandError(f"{path} cannot be changed: {error.strerror}.") from error
        if not self._may_edit(path, os.fstat(file)):
            os.close(file)
            raise CommandError(f"{path} cannot be changed: another file has taken its place.")
        return file


def _has_user_line(path: Path, rules: str) -> bool:
    """Return True if the file gives the user these rights and this password."""
    needed = {each for each in rules.split() if each[0] in "+#"}
    return any(needed <= set(words) for words in _user_lines(path))


def _user_lines(path: Path) -> list[list[str]]:
    """Return the words of the lines that define the user; none if the file cannot be read."""
    try:
        with open_regular(path) as file:
            text = file.read(MOST_BYTES).decode(errors="surrogateescape")
    except (OSError, ValueError):
        return []
    lines = [line.split() for line in text.splitlines()]
    return [words for words in lines if words[:2] == ["user", SERVER_USER]]


def _back_up(path: Path, text: str, owner: os.stat_result) -> None:
    """Keep `text` in a new file next to `path`, with its owner and mode."""
    number, handle = 0, None
    while handle is None:
        number += 1
        copy = path.with_name(f"{path.name}.before-modfleet-{number}")
        with suppress(FileExistsError):  # also if it is a link that leads nowhere
            handle = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", errors="surrogateescape", newline="") as file:
        file.write(text)
        if os.geteuid() == 0:
            os.fchown(handle, owner.st_uid, owner.st_gid)
        os.fchmod(handle, stat.S_IMODE(owner.st_mode))


def polkit_rule(unit: str) -> str:
    """Return the rule that lets the agent start this unit, and nothing else."""
    return POLKIT.format(unit=json.dumps(unit), user=json.dumps(AGENT_USER))
