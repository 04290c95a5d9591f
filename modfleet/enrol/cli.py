"""The options of `modfleet agent install` and `modfleet agent uninstall`. They use argparse, which needs no extra."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from modfleet.arguments import Parser
from modfleet.enrol import exchange, join_token, server
from modfleet.enrol.host import Host, SystemHost
from modfleet.enrol.install import install
from modfleet.enrol.rights import ADDED, OWNERS
from modfleet.enrol.server import Login
from modfleet.enrol.uninstall import uninstall
from modfleet.enrol.wishes import PATIENCE_SECONDS, Wishes
from modfleet.failure import CommandError, ExitCode, UsageError

INSTALL = """Enrol this host's node and install its agent. Run it as root on the host of the server.

`modfleet nodes add NAME`, on a workstation, prints the whole command. It exchanges the join token for the node's own key and
its own user at the broker; the key is created here and stays here. It creates the user modfleet-agent, its directories, the
settings in /etc/modfleet/agents/NAME.env and the unit modfleet-agent@NAME, starts the agent, and waits for its first
heartbeat.

What must change in the server is printed, and done only with --yes. The server is never restarted. A second run changes
nothing and needs no token.
"""
UNINSTALL = """Stop the agent of a node, and delete its settings and its identity. Run it as root.

The modules, and the file from which a start of the server loads them, are kept. The command prints where they are.
"""


def install_parser() -> Parser:
    made = _parser("install", INSTALL)
    made.add_argument("--control", metavar="URL", help="URL of the control plane, https://HOST[:PORT].")
    made.add_argument(
        "--server", metavar="URL", help="The server: unix:///PATH, redis://HOST:PORT or rediss://HOST:PORT."
    )
    token = made.add_mutually_exclusive_group()
    token.add_argument(
        "--token", help="The join token; - for standard input. Other users of the host can see arguments."
    )
    token.add_argument("--token-file", metavar="FILE", type=Path, help="File with the join token.")
    made.add_argument("--name", help="Name of the node. Default with a token for several nodes: the name of this host.")
    made.add_argument(
        "--observe", action="store_true", help="Install an agent that changes nothing, and add rights to it later."
    )
    rights = "; ".join(f"{name}: {what}" for name, what in ADDED.items())
    made.add_argument(
        "--add",
        metavar="RIGHT",
        action="append",
        choices=tuple(ADDED),
        default=[],
        help=f"Add a right to the agent; may be repeated. {rights}.",
    )
    made.add_argument(
        "--persistence",
        choices=OWNERS,
        help="Who owns the lines from which a start of the server loads its modules. include: a file of the agent, which the "
        "server's configuration includes; rewrite: the server, by CONFIG REWRITE; external: a person or a tool. "
        "Default: include, or rewrite if a Sentinel watches the server.",
    )
    made.add_argument(
        "--yes", action="store_true", help="Also change the server's users and its configuration file, with a backup."
    )
    _add_place(made)
    _add_admin(made)
    made.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=PATIENCE_SECONDS,
        help=f"Seconds to wait for the first heartbeat. Default: {PATIENCE_SECONDS:g}.",
    )
    return made


def uninstall_parser() -> Parser:
    made = _parser("uninstall", UNINSTALL)
    made.add_argument("node", metavar="NODE", help="Name of the node.")
    made.add_argument(
        "--purge",
        action="store_true",
        help="Also delete the modules and the journal. Refused while a module is loaded, or if that is not known.",
    )
    _add_place(made)
    _add_admin(made)
    return made


def install_main(words: Sequence[str]) -> NoReturn:
    given = install_parser().parse_args(words)
    sys.exit(_run(lambda: _install(given)))


def uninstall_main(words: Sequence[str]) -> NoReturn:
    given = uninstall_parser().parse_args(words)
    sys.exit(_run(lambda: _uninstall(given)))


def _install(given: argparse.Namespace) -> ExitCode:
    _require_root(given)
    wishes = Wishes(
        control=exchange.check_url(given.control) if given.control else None,
        server=server.check_url(given.server) if given.server else None,
        token=join_token.read(given.token, given.token_file),
        name=_name(given.name) if given.name else None,
        observe=given.observe,
        add=tuple(given.add),
        persistence=given.persistence,
        yes=given.yes,
        service=not given.no_service and given.root is None,
        admin=_admin(given),
        wait_seconds=given.wait,
    )
    return install(wishes, _host(given), _tell)


def _uninstall(given: argparse.Namespace) -> ExitCode:
    _require_root(given)
    return uninstall(_name(given.node), _host(given), _tell, purge=given.purge, admin=_admin(given))


def _run(command: Callable[[], ExitCode]) -> ExitCode:
    """Run the command. Print an error as one sentence to standard error."""
    mask = os.umask(0o022)  # the server's user must reach the modules
    try:
        return command()
    except CommandError as error:
        sentence, code = str(error), error.code
    except OSError as error:
        sentence, code = f"{error.filename or 'The disk'}: {error.strerror or error}.", ExitCode.FAILED
    except KeyboardInterrupt:
        sentence, code = "Stopped. Run the command again to go on.", ExitCode.INTERRUPTED
    finally:
        os.umask(mask)
    print(_printable(" ".join(sentence.split())), file=sys.stderr)  # noqa: T201 - the person who typed the command reads it
    return code


def _tell(line: str) -> None:
    print(_printable(line), flush=True)  # noqa: T201 - the answer


def _printable(text: str) -> str:
    """Return text with its control characters escaped: a server's text may contain what a terminal would obey."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _parser(name: str, description: str) -> Parser:
    return Parser(
        prog=f"modfleet agent {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_place(made: Parser) -> None:
    made.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="Put all files below DIR, for the calling user: no root, no user, no unit. The agent runs with these paths.",
    )
    made.add_argument(
        "--no-service",
        action="store_true",
        help="Create no user and no unit, for a host without systemd: the command that runs the agent is printed.",
    )


def _add_admin(made: Parser) -> None:
    made.add_argument(
        "--admin-user", metavar="USER", default="", help="Administrator of the server. Default: its user `default`."
    )
    made.add_argument(
        "--admin-password-file",
        metavar="FILE",
        type=Path,
        help="File with the administrator's password. It is used only by this command, and not stored.",
    )


def _host(given: argparse.Namespace) -> Host:
    if given.root is not None:
        return Host(given.root)
    return Host(Path("/")) if given.no_service else SystemHost()


def _admin(given: argparse.Namespace) -> Login | None:
    file = given.admin_password_file
    if file is None:
        if given.admin_user:
            raise UsageError("--admin-user needs --admin-password-file.")
        return None
    if not os.access(file, os.R_OK):
        raise UsageError(f"--admin-password-file {file} cannot be read.")
    return Login(user=given.admin_user, password_file=file)


def _name(name: str) -> str:
    if not re.fullmatch(r"(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,128}", name):
        raise UsageError(f"{name!r} is not the name of a node: use up to 128 letters, digits, -, _ and dots.")
    return name


def _require_root(given: argparse.Namespace) -> None:
    if given.root is None and os.geteuid() != 0:
        raise UsageError("Run this command as root, or give a directory of your own with --root DIR.")
    if given.root is not None and not given.root.is_dir():
        raise UsageError(f"--root {given.root} is not a directory. Create it first.")
    if not given.no_service and given.root is None and not Path("/run/systemd/system").is_dir():
        raise UsageError("This host does not run systemd. Use --no-service, or --root DIR.")
