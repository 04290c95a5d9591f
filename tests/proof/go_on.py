"""What a reasonable operator does with a rollout that a fault has hurt.

The phases that runs with faults have shown, besides those of a rollout that nothing hurts: `paused` after a failed node (a killed
server, a full disk, a package that could not be fetched) or because an agent was silent for three heartbeats, then `running` after a
retry or a resume; `completed_with_failures` and `failed`, then a new rollout that retries; a rollout that has ended without some nodes (canceled, or
skipped because a server was not ready in time), then the same rollout anew.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.fleet import FINAL, PAUSE, ROLLOUTS, Fleet

#: An operator asks for help after so many attempts.
MOST_ATTEMPTS = 20
#: A node that is degraded for longer, although its server serves, was restarted often: it recovers late, so that it does not fill
#: the log. Seconds.
DEGRADED_SECONDS = 10.0
#: Phases in which an operation has ended without what it was for.
NOT_DONE = {"failed", "timed_out", "canceled", "skipped"}
#: Reasons for which a node is left out, because it has what it should have.
RIGHT = {"already_installed", "not_installed"}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One that did not reach all nodes. `ended_at`: by the monotonic clock, seconds. `nodes`: those that have failed."""

    ended_at: float
    nodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The newest rollout, and what came before: all phases in order, and all failed attempts."""

    uid: str
    phase: str
    phases: tuple[str, ...]
    attempts: tuple[Attempt, ...]


def go_on(fleet: Fleet, uid: str, *, expected: str = "succeeded", again: Callable[[], str], seconds: float) -> Ending:
    """Return when all nodes have what they should have. Retry nodes that have failed, or roll back if that is `expected`.

    `again` asks for the same once more, by a new rollout that succeeds; returns its uid.
    """
    end = time.monotonic() + seconds
    phases: list[str] = []
    attempts: list[Attempt] = []
    watched = _Degraded(fleet)
    while True:
        phase = fleet.rollout(uid)["phase"]
        if phases[-1:] != [phase]:
            phases.append(phase)
        missing = _not_done(fleet, uid) if phase == "succeeded" else ()
        if phase == expected and not missing:
            return Ending(uid=uid, phase=phase, phases=tuple(phases), attempts=tuple(attempts))
        if phase in FINAL or phase == "paused":
            if failed := _not_done(fleet, uid, but="skipped"):  # else an agent was silent
                attempts.append(Attempt(ended_at=time.monotonic(), nodes=failed))
            assert len(attempts) < MOST_ATTEMPTS, fleet.state(uid)
            uid, expected = _try_again(fleet, uid, phase, expected, again)
        watched.forget()
        assert time.monotonic() < end, f"{phases}: {fleet.state(uid)}"
        time.sleep(PAUSE)


def _not_done(fleet: Fleet, uid: str, *, but: str = "") -> tuple[str, ...]:
    nodes = fleet.get(f"{ROLLOUTS}/{uid}/nodes", params={"limit": 1000})["results"]
    phases = NOT_DONE - set(but.split())
    return tuple(each["node"] for each in nodes if each["phase"] in phases and each["reason"] not in RIGHT)


def _try_again(fleet: Fleet, uid: str, phase: str, expected: str, again: Callable[[], str]) -> tuple[str, str]:
    """Return the uid of the rollout that does it, and the phase in which it should end."""
    verb = "retry" if expected == "succeeded" else "rollback"
    # A retry of a rollout that has ended is for the nodes that have failed only.
    if not (verb == "retry" and phase in FINAL and _not_done(fleet, uid, but="failed timed_out")):
        response = fleet.api.post(f"{ROLLOUTS}/{uid}/{verb}")
        if response.status_code == 202:
            return str(response.json()["uid"]), expected
    if phase == "paused" and fleet.api.post(f"{ROLLOUTS}/{uid}/resume").status_code == 202:
        return uid, expected
    return again(), "succeeded"


class _Degraded:
    """Since when each node is degraded."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._since: dict[str, float] = {}

    def forget(self) -> None:
        """Forget the nodes that are degraded for long."""
        now = time.monotonic()
        found = self._fleet.get("/v2/nodes", params={"limit": 1000})["results"]
        names = {each["name"] for each in found if each["phase"] == "degraded"}
        self._since = {name: self._since.get(name, now) for name in names}
        for name, since in self._since.items():
            if now - since > DEGRADED_SECONDS:
                self._fleet.api.post(f"/v2/nodes/{name}/forget")
