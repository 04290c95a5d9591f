"""`modfleet agent doctor`: check this host. It uses argparse, which the base installation has."""

import argparse
import json
import os
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from modfleet.arguments import Parser, end
from modfleet.failure import ExitCode
from rollout.agent.doctor import check_start_now, run_doctor
from rollout.agent.doctor.acl import Extra, Level, acl_line
from rollout.agent.settings import AgentSettings, SettingsError, settings_from
from rollout.messages import FindingStatus, WouldStart

SUMMARY = "Check this host, its server, the broker and the control plane. It changes nothing."
DESCRIPTION = f"""{SUMMARY}

It reads the agent's settings from the environment, and prints one line for each check: pass, warn, fail or unknown, with
the fix. Run it as the agent's user, or as root to see more of the server's process.

Exit codes: 0 if no check fails, 1 if one fails, 2 if a setting is wrong. --start-check has its own.
"""


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="modfleet agent doctor",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        help="File with the agent's settings, as in `EnvironmentFile=` of its unit. It replaces the environment's.",
    )
    made.add_argument("--json", action="store_true", help="Print the findings as a JSON array.")
    made.add_argument(
        "--start-check",
        action="store_true",
        help="Check only if the server would start with all its modules, without its data. Exit code 0: yes, 1: no, "
        "2: unknown.",
    )
    made.add_argument(
        "--binary",
        type=Path,
        metavar="PATH",
        help="With --start-check: the server's program to start, such as one that is not installed yet.",
    )
    made.add_argument(
        "--print-acl",
        choices=[each.value for each in Level],
        metavar="LEVEL",
        help="Print the line of an ACL file for the agent's user at the server, and exit: observe, load or restart.",
    )
    made.add_argument("--user", metavar="NAME", default="modfleet-agent", help="Name of that user.")
    made.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="File with that user's password. If not given, a password is generated and printed to standard error.",
    )
    made.add_argument(
        "--also",
        nargs="+",
        choices=[each.value for each in Extra],
        default=[],
        metavar="RIGHT",
        help="Further rights: keys, acl-list and config, which show secrets; removal, for removals of modules; "
        "options and rewrite, for settings of modules and CONFIG REWRITE; migrations, for a cluster of Valkey 9.",
    )
    return made


def main(words: Sequence[str]) -> NoReturn:
    given = parser().parse_args(words)
    if given.print_acl:
        _print_acl(given)
    if given.binary and not given.start_check:
        end("--binary needs --start-check.", ExitCode.USAGE)
    if given.start_check:
        _check_start(_settings(given.env_file), given.binary, as_json=given.json)
    _diagnose(_settings(given.env_file), as_json=given.json)


def _environ(file: Path | None) -> Mapping[str, str]:
    if file is None:
        return os.environ
    try:
        words = shlex.split(file.read_text(), comments=True)
    except (OSError, ValueError) as error:
        end(f"{file} cannot be read: {_words(error)}.", ExitCode.USAGE)
    return {**os.environ, **dict(word.split("=", 1) for word in words if "=" in word)}


def _words(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _settings(file: Path | None) -> AgentSettings:
    try:
        return settings_from(_environ(file))
    except SettingsError as error:
        end(f"{error} `modfleet agent --help` lists the required settings.", ExitCode.USAGE)


def _check_start(settings: AgentSettings, program: Path | None, *, as_json: bool) -> NoReturn:
    if program and not program.is_file():
        end(f"There is no program {program}.", ExitCode.USAGE)
    found = check_start_now(settings, program.absolute() if program else None)
    if as_json:
        print(json.dumps({"would_start": found.result, "reason": found.reason}, indent=2))  # noqa: T201 - the answer
    else:
        print(f"{_WOULD_START[found.result]} {found.reason}".rstrip())  # noqa: T201 - likewise
    sys.exit(_START_CODES[found.result])


_WOULD_START = {
    WouldStart.YES: "The server would start with all its modules.",
    WouldStart.NO: "The server would not start.",
    WouldStart.UNKNOWN: "It is not known if the server would start.",
}
_START_CODES = {WouldStart.YES: 0, WouldStart.NO: 1, WouldStart.UNKNOWN: 2}


def _diagnose(settings: AgentSettings, *, as_json: bool) -> NoReturn:
    findings = run_doctor(settings)
    if as_json:
        print(json.dumps(msgspec.to_builtins(findings), indent=2))  # noqa: T201 - the answer
    else:
        for each in findings:
            print(f"{each.status:<8} {each.check}: {each.message}")  # noqa: T201 - the answer
            if each.fix:
                print(f"{'':<8} Fix: {each.fix}")  # noqa: T201 - likewise
    has_failed = any(each.status is FindingStatus.FAIL for each in findings)
    sys.exit(ExitCode.FAILED if has_failed else ExitCode.SUCCEEDED)


def _print_acl(given: argparse.Namespace) -> NoReturn:
    if not given.user or any(each.isspace() or not each.isprintable() for each in given.user):
        end("The name of a user has no spaces.", ExitCode.USAGE)
    if given.password_file:
        try:
            password = given.password_file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            end(f"{given.password_file} cannot be read: {_words(error)}.", ExitCode.USAGE)
    else:
        password = secrets.token_urlsafe(32)
        print(f"user {given.user}, password {password}", file=sys.stderr)  # noqa: T201 - not part of the line
    print(acl_line(Level(given.print_acl), given.user, password, [Extra(each) for each in given.also]))  # noqa: T201 - the answer
    sys.exit(ExitCode.SUCCEEDED)
