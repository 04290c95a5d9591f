"""What a shell may complete: asked of the control plane, quickly, or not at all."""

import os
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

RolloutUid = Annotated[str, typer.Argument(metavar="UID", help="The rollout.", autocompletion=rollout_uids)]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="Name of the node.", autocompletion=node_names)]
ModuleName = Annotated[str, typer.Argument(metavar="MODULE", help="Name of the module.", autocompletion=module_names)]
Version = Annotated[int, typer.Argument(metavar="VERSION", help="A whole number, as in module.json.", min=0)]
