"""`modfleet freeze` and `modfleet thaw`: freeze and thaw the fleet."""

from typing import Annotated

import typer

from eventstore import in_words
from modfleet.client import FREEZE, Document
from modfleet.commands.parameters import builds
from modfleet.commands.session import Session, open_session


@builds(session=open_session)
def freeze(
    session: Session,
    reason: Annotated[
        str | None, typer.Argument(metavar="REASON", help="Reason for the freeze. Default: only show the status.")
    ] = None,
) -> None:
    """Freeze the fleet: start nothing new on any node until `modfleet thaw`. Without REASON, show the freeze status.

    Removals, retries and rollbacks do not start either. Operations in progress finish.
    """
    session.show(session.api.get(FREEZE) if reason is None else session.api.post(FREEZE, {"reason": reason}), _in_words)


@builds(session=open_session)
def thaw(session: Session) -> None:
    """Thaw the fleet: end the freeze, so that rollouts continue."""
    session.show(session.api.delete(FREEZE), _in_words)


def _in_words(state: Document) -> str:
    if not state["frozen"]:
        return "not frozen"
    return f"frozen by {in_words(state['actor'])} since {state['frozen_at']}: {state['reason']}"
