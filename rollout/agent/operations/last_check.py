"""The agent's last check, directly before it changes the server: is the server still what the control plane released?"""

from rollout.agent.failure import Failure, MustWaitError
from rollout.agent.node.node import Node
from rollout.agent.server.session import ServerLoadingError, ServerLostError, ServerSilentError, Session
from rollout.messages import Command, Reason
from rollout.readiness import what_changed, why_not_ready


def refuse_to_change(node: Node, command: Command, session: Session) -> None:
    """Raises: `MustWaitError` if the server's place in its shard has changed since the release, or if it is not ready.

    A command that expects nothing is of an older control plane, which takes no operation back: nothing is checked.
    """
    if command.expects is None:
        return
    try:
        state = node.observer.readiness(session)
    except ServerLoadingError as error:
        raise MustWaitError(Reason.SERVER_NOT_READY, error.message) from error
    except (ServerLostError, ServerSilentError) as error:
        # Nothing was changed yet: whatever ended the connection, it was not the module.
        raise Failure(error.reason, error.message) from error
    if state.replication and (words := what_changed(command.expects, state.replication)):
        raise MustWaitError(Reason.ROLE_CHANGED, words)
    if wait := why_not_ready(state):
        raise MustWaitError(*wait)
