"""The command line `modfleet`: its commands, and how errors become exit codes."""

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from modfleet.commands import (
    adopt,
    agent,
    artifacts,
    events,
    freeze,
    login,
    modules,
    nodes,
    pack,
    prove,
    push,
    rollout,
    up,
    users,
)
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, open_session, printable
from modfleet.failure import EXIT_CODES, CommandError, ExitCode

#: Typer raises it for a command line that it cannot parse.
CommandLineError: Any = typer.BadParameter.__base__


class Commands(TyperGroup):
    """Print each error as one line to standard error, and exit with its code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except CommandError as error:
            code = _fail(str(error), error.code)
        except CommandLineError as error:
            code = _fail_usage(error)
        except typer.Abort:
            code = ExitCode.INTERRUPTED
        except Exception as error:
            if os.environ.get("MODFLEET_TRACEBACK"):
                raise
            message = f"{type(error).__name__}: {error}".removesuffix(".")
            code = _fail(
                f"This command has a bug: {message}. Set MODFLEET_TRACEBACK=1 to see the traceback.", ExitCode.FAILED
            )
        sys.exit(int(code) if isinstance(code, int) else ExitCode.SUCCEEDED)


def _fail(sentence: str, code: ExitCode) -> ExitCode:
    typer.echo(printable(sentence), err=True)
    return code


def _fail_usage(error: Any) -> ExitCode:
    message = error.format_message()
    if error.ctx is None or not message or "\n" in message:  # no command was given: this shows the help
        error.show()
        return ExitCode.USAGE
    sentence = message if message.endswith((".", "?")) else f"{message}."
    if message.startswith(("Missing ", "Got unexpected ")):
        sentence = f"{sentence} {' '.join(error.ctx.get_usage().split())}."
    return _fail(f"{sentence} See `{error.ctx.command_path} --help`.", ExitCode.USAGE)


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)


@app.callback(epilog=EXIT_CODES)
@builds(session=open_session)
def modfleet(session: Session) -> None:
    """Roll out user-defined Redis and Valkey modules to every node of a fleet."""


app.command("login")(login.login)
app.command("logout")(login.logout)
app.command("pack")(pack.pack)
app.command("push")(push.push)
app.add_typer(rollout.app, name="rollout")
app.add_typer(modules.app, name="modules")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(nodes.app, name="nodes")
app.command("adopt")(adopt.adopt)
app.command("prove")(prove.prove)
app.command("events")(events.events)
app.add_typer(users.app, name="users")
app.command("freeze")(freeze.freeze)
app.command("thaw")(freeze.thaw)
app.command("up")(up.up)


@app.command(
    "agent",
    help=agent.DESCRIPTION,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def run_agent(ctx: typer.Context) -> None:
    agent.main(ctx.args)
