"""`modfleet prove`: a proof from the clients' side, in a user's own fleet."""

from pathlib import Path
from typing import Annotated

import typer

from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, open_session
from modfleet.failure import UsageError

#: Seconds without a change that are recorded before and after it, unless `--baseline` says otherwise.
BASELINE = 10.0


@builds(session=open_session)
def prove(
    session: Session,
    staging: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="YAML file with the servers, the module and its commands. docs/howto/prove.md describes it.",
        ),
    ],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND",
            help="Record while this command runs, and until its rollouts have ended. Write it after `--`.",
        ),
    ] = None,
    rollout: Annotated[
        str | None, typer.Option(metavar="UID", help="Record until this rollout has ended. It must be in progress.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.05, help="Record for so many minutes, and until no rollout is in progress."),
    ] = None,
    baseline: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Record so many seconds before COMMAND starts, and after the last rollout has ended.",
        ),
    ] = BASELINE,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="New directory for the certificate and the histories. Default: ./modfleet-proof-<date>."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed for the order of the clients' commands. Default: a random one.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Accept a rate of more than 2,000 commands per second.")
    ] = False,
) -> None:
    """Prove that an upgrade refuses no command and loses no write, with clients that call your module meanwhile.

    Clients write and read through your servers with the module's own commands, and write down each call. At the end, the
    data of each master and replica is compared with what was acknowledged. Each key begins with the prefix in FILE, and is
    deleted at the end, also after Ctrl-C. The module must be loaded before.

    Give one of COMMAND, --rollout and --minutes. The certificate is printed as Markdown, with --json as JSON. Both are also
    written to a new directory, with the histories. The exit code is 0 only if no rule was violated, a write was
    acknowledged, COMMAND has succeeded, a rollout changed a server (not with --minutes), and all keys were deleted.
    """
    if sum(each is not None for each in (command or None, rollout, minutes)) != 1:
        raise UsageError("Give exactly one of -- COMMAND, --rollout UID and --minutes N.")
    from modfleet.commands.proving import Order, prove_staging

    order = Order(
        file=staging, command=command or [], rollout=rollout, minutes=minutes, baseline=baseline, out=out, seed=seed
    )
    raise typer.Exit(prove_staging(session, order, yes=yes))
