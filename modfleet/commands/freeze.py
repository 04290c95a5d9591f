"""`modfleet freeze` and `modfleet thaw`: the one switch for everything."""

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
        str | None, typer.Argument(metavar="REASON", help="Why, for everybody who wonders. Left out: only look.")
    ] = None,
) -> None:
    """Release nothing anywhere until `modfleet thaw`; without REASON say whether it is so. What was released goes on."""
    session.show(session.api.get(FREEZE) if reason is None else session.api.post(FREEZE, {"reason": reason}), _in_words)


@builds(session=open_session)
def thaw(session: Session) -> None:
    """Lift the freeze."""
    session.show(session.api.delete(FREEZE), _in_words)


def _in_words(state: Document) -> str:
    if not state["frozen"]:
        return "not frozen"
    return f"frozen by {in_words(state['actor'])} since {state['frozen_at']}: {state['reason']}"
