"""One-way changes: the former version cannot read what the new one has written, or that is not known.

Then a rollback could not start the servers. So the rollout waits after the node that has shown it, until a person promotes it.
"""

from rollout.domain.errors import OneWayError
from rollout.domain.rollout.events import OneWayFound
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.words import sentence
from rollout.messages import WayBackResult


def one_way_found(state: RolloutState, snapshot: Snapshot) -> list[OneWayFound]:
    """Return the event that makes the rollout one-way, if a node has shown it for the first time."""
    if state.one_way is not None or snapshot.one_way is None:
        return []
    node, way_back = snapshot.one_way
    return [OneWayFound(rollout=state.uid, node=node, way_back=way_back)]


def what_is_one_way(found: OneWayFound, version: int) -> str:
    """Return what the node has shown, as sentences."""
    former, why = found.way_back.former_version, sentence(found.way_back.message)
    if found.way_back.result is WayBackResult.CLOSED:
        return f"Version {former} cannot read what version {version} has written on {found.node}. {why}".rstrip()
    return f"It is not known if version {former} can read what version {version} writes: {found.node} could not try it. {why}".rstrip()


def refuse_if_one_way(state: RolloutState) -> None:
    """Raises: `OneWayError`, with the way back that exists."""
    if state.one_way is None or state.started is None:
        return
    found, version = state.one_way, state.started.version
    kept = f", with the data from before in {found.way_back.kept_file}" if found.way_back.kept_file else ""
    ends = "" if state.phase.is_final else "Abort the rollout, so that it changes no other node. "
    raise OneWayError(
        f"{what_is_one_way(found, version)} So the rollout is not rolled back. {ends}To go back on one node{kept}, start a rollout of "
        f'version {found.way_back.former_version} there with "may_discard_data": true: it loses what was written since, and a replica '
        "gets that from its master. Or roll out a version that reads what both have written. See docs/howto/restarts.md."
    )
