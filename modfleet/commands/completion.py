"""Complete names in a shell. They come from the control plane; without a quick answer there are none."""

import os
import re
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from modfleet.client import MODULES, NODES, ROLLOUTS, Client
from modfleet.failure import CommandError
from modfleet.profile import Given, access_from

PATIENCE_SECONDS = 2.0
MOST = 1000


def _names(ask: Callable[[Client], Iterable[str]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        try:
            with Client(access_from(Given(), os.environ, ask=None), patience=PATIENCE_SECONDS) as api:
                return [each for each in dict.fromkeys(ask(api)) if each.startswith(incomplete)]
        except CommandError:
            return []

    return complete


rollout_uids = _names(lambda api: (each["uid"] for each in api.every(ROLLOUTS, most=100)))
node_names = _names(lambda api: (each["name"] for each in api.every(NODES, most=MOST)))
module_names = _names(lambda api: (each["module_name"] for each in api.every(MODULES, most=MOST)))

RolloutUid = Annotated[str, typer.Argument(metavar="UID", help="UID of the rollout.", autocompletion=rollout_uids)]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="Name of the node.", autocompletion=node_names)]
ModuleName = Annotated[str, typer.Argument(metavar="MODULE", help="Name of the module.", autocompletion=module_names)]


def version_number(text: str) -> int:
    """Return the version as a number. Raises: `typer.BadParameter`, with the number for a semantic version."""
    if re.fullmatch("[0-9]+", text):
        return int(text)
    if parts := re.fullmatch(r"v?([0-9]+)\.([0-9]{1,2})\.([0-9]{1,2})", text):
        major, minor, patch = map(int, parts.groups())
        number = 10_000 * major + 100 * minor + patch
        raise typer.BadParameter(f"{text} is not a whole number. Write the version as in module.json: {number}.")
    raise typer.BadParameter(
        f"{text} is not a whole number. Write the version as in module.json; `modfleet modules` lists them."
    )


Version = Annotated[
    int,
    typer.Argument(
        metavar="VERSION", help="Version of the module: a whole number, as in module.json.", parser=version_number
    ),
]
