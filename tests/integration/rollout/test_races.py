"""Races between different services: what they may not both do, they never both do.

Each round has nodes and modules of its own. A race says what one after the other would have led to as well: whichever
was first.
"""

import pytest

from api.errors import ApiError
from artifacts_app import services as artifacts
from artifacts_app.errors import ArtifactInUseError, ArtifactNotFoundError
from artifacts_app.models import Build
from artifacts_app.services import delete_artifact
from eventstore import load, read
from modules_app.errors import ModuleInUseError
from rollout.domain.errors import (
    ModuleNeededError,
    NoMatchError,
    NothingToRetryError,
    NothingToRollBackError,
    RolloutFinalError,
    RolloutInProgressError,
    UnknownNodeError,
    WrongPhaseError,
)
from rollout.domain.fleet.events import FleetFrozen, FleetThawed
from rollout.domain.node.events import NodeDrained, NodeLabelled, NodeWentOffline
from rollout.domain.request import AT_ONCE, RolloutRequest
from rollout.domain.retries import Retries
from rollout.domain.rollout.events import (
    AbortRequested,
    NodesReleased,
    NodesRetried,
    RollbackRequested,
    RolloutApproved,
    RolloutResumed,
    RolloutStarted,
    rollout_stream,
)
from rollout.domain.selector import Selector
from rollout.messages import Action, Activation, Phase, Reason
from rollout.models import Operation
from rollout.planning.planner import plan_of
from rollout.process import offline_nodes
from rollout.process.advance import advance
from rollout.reconciliation import reconciler
from rollout.services import local_node, rollouts
from rollout.services import start as start_module
from rollout.services.freeze import freeze_fleet, thaw_fleet
from rollout.services.nodes import decommission_node, drain_node, label_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import abort_rollout, approve_rollout, resume_rollout, retry_rollout
from rollout.services.start import start_rollout
from tests.plugins.cast import client_of
from tests.plugins.databases import at_once
from tests.recorded_fleet import fleet, installed, inventory, join, node, phases, say, silence, start, upload
from tests.recorded_modules import load_on, package

pytestmark = [pytest.mark.usefixtures("committed_db"), pytest.mark.slow]

#: One node at a time; the first that fails has it paused.
PAUSED = {"canary": 0, "max_parallel": 1, "max_failures": 0, "retries": Retries(limit=0)}


def exactly_one(outcomes, *errors):
    """One was done, the other refused for one of the reasons."""
    refused = [each for each in outcomes if isinstance(each, Exception)]
    assert len(refused) == 1, outcomes
    assert isinstance(refused[0], errors), outcomes
    return True


def unexpected(outcomes, *errors):
    return [each for each in outcomes if isinstance(each, Exception) and not isinstance(each, errors)]


class Game:
    """One race: `prepare` what a round needs, the two that `run` at once, and whether what came of it `holds`."""

    #: Rounds where there is no time for 200.
    rounds = 5

    def __init__(self, number):
        self.name = f"m{number}"
        self.node = f"n{number}"

    def start(self, **more):
        return start(module_name=self.name, nodes=(self.node,), **{"released": False, **more})

    def prepare(self):
        join(self.node)
        upload(module_name=self.name)

    def finish(self):
        """So that what a round leaves keeps no later one busy."""

    def order(self, *kinds, stream=None):
        """Names of the events of these kinds, in the order of the log."""
        recorded = load(stream) if stream else read(event_classes=kinds)
        return [type(each.event).__name__ for each in recorded if isinstance(each.event, kinds)]

    def live(self):
        return Operation.objects.filter(node=self.node, finished_at__isnull=True)


class DeleteAndStart(Game):
    rounds = 15

    def run(self):
        delete = lambda: delete_artifact(self.name, 1)  # noqa: E731
        return delete, self.start

    def holds(self, outcomes):
        assert Build.objects.filter(module_name=self.name).exists() == self.live().exists(), outcomes
        return exactly_one(outcomes, ArtifactNotFoundError, ArtifactInUseError)


class DeleteAndStartAsPlanned(DeleteAndStart):
    rounds = 5

    def prepare(self):
        super().prepare()
        request = RolloutRequest(action=Action.INSTALL, module_name=self.name, version=1, nodes=(self.node,))
        self.request = RolloutRequest(
            action=Action.INSTALL, module_name=self.name, version=1, nodes=(self.node,), plan_hash=plan_of(request).hash
        )

    def start(self, **more):
        return start_rollout(self.request)


class RemoveAndInstallWhatNeedsIt(Game):
    rounds = 15

    def prepare(self):
        join(self.node)
        package(self.name)
        package(f"{self.name}-main", needs=[self.name])
        load_on([self.node], self.name)

    def run(self):
        return lambda: self.start(action=Action.REMOVE), lambda: start(
            module_name=f"{self.name}-main", nodes=(self.node,), released=False
        )

    def holds(self, outcomes):
        assert self.live().count() == 1, outcomes
        return exactly_one(outcomes, ModuleNeededError, RolloutInProgressError)


class DecommissionAndStart(Game):
    rounds = 15

    def run(self):
        return lambda: decommission_node(self.node), self.start

    def holds(self, outcomes):
        assert unexpected(outcomes, UnknownNodeError) == []
        return not self.live().exists()


class DecommissionAndRelease(Game):
    def run(self):
        uid = self.start()
        return lambda: decommission_node(self.node), lambda: advance(uid)

    def holds(self, outcomes):
        assert unexpected(outcomes) == []
        return not self.live().exists()


class FreezeAndRelease(Game):
    rounds = 15

    def run(self):
        self.uid = self.start()
        return lambda: freeze_fleet("race"), lambda: advance(self.uid)

    def holds(self, outcomes):
        assert unexpected(outcomes) == []
        order = self.order(FleetFrozen, FleetThawed, NodesReleased)
        return order[-1] == "FleetFrozen"

    def finish(self):
        thaw_fleet()
        say(self.uid, self.node)


class DrainAndRelease(Game):
    def run(self):
        self.uid = self.start()
        return lambda: drain_node(self.node), lambda: advance(self.uid)

    def holds(self, outcomes):
        assert unexpected(outcomes) == []
        return self.order(NodeDrained, NodesReleased)[-1] == "NodeDrained"


class OfflineAndRelease(Game):
    def run(self):
        self.uid = self.start()
        silence(self.node)
        return offline_nodes.declare_silent_nodes_offline, lambda: advance(self.uid)

    def holds(self, outcomes):
        assert unexpected(outcomes) == []
        assert self.order(NodeWentOffline)
        return phases(self.uid) == {self.node: "scheduled"}


class ApproveAndAbort(Game):
    rounds = 15

    def run(self):
        self.uid = self.start(careful={"canary": 0, "approval": True})
        return lambda: approve_rollout(self.uid, by=2, remark="go"), lambda: abort_rollout(self.uid)

    def holds(self, outcomes):
        assert unexpected(outcomes, WrongPhaseError, RolloutFinalError) == []
        order = self.order(RolloutApproved, AbortRequested, stream=rollout_stream(self.uid))
        return order in (["AbortRequested"], ["RolloutApproved", "AbortRequested"])


class RollbackAndRetryInPlace(Game):
    rounds = 15

    def run(self):
        join(f"{self.node}-other")
        nodes = (self.node, f"{self.node}-other")
        self.uid = start(module_name=self.name, nodes=nodes, careful=PAUSED)
        say(self.uid, self.node, Phase.FAILED, reason=Reason.LOAD_FAILED)
        return lambda: roll_back_rollout(self.uid), lambda: retry_rollout(self.uid)

    def holds(self, outcomes):
        assert unexpected(outcomes, WrongPhaseError) == []
        order = self.order(RollbackRequested, NodesRetried, stream=rollout_stream(self.uid))
        return order in (["RollbackRequested"], ["NodesRetried", "RollbackRequested"])


class RollbackAndRetryOfWhatHasEnded(Game):
    def run(self):
        uid = self.start(released=True)
        say(uid, self.node, Phase.FAILED, reason=Reason.LOAD_FAILED)
        return lambda: roll_back_rollout(uid), lambda: retry_rollout(uid)

    def holds(self, outcomes):
        assert self.live().count() == 1, outcomes
        return exactly_one(outcomes, NothingToRollBackError, RolloutInProgressError)


class RetryInPlaceAndDecommission(Game):
    def run(self):
        join(f"{self.node}-other")
        uid = start(module_name=self.name, nodes=(self.node, f"{self.node}-other"), careful=PAUSED)
        say(uid, self.node, Phase.FAILED, reason=Reason.LOAD_FAILED)
        return lambda: retry_rollout(uid), lambda: decommission_node(self.node)

    def holds(self, outcomes):
        assert unexpected(outcomes, NothingToRetryError) == []
        return not self.live().exists()


class RollbackAndDecommission(Game):
    def run(self):
        uid = self.start(released=True)
        say(uid, self.node)
        return lambda: roll_back_rollout(uid), lambda: decommission_node(self.node)

    def holds(self, outcomes):
        assert unexpected(outcomes, NothingToRollBackError) == []
        return not self.live().exists()


class ReconcileAndStart(Game):
    """The node has joined late, and lacks what the whole fleet is to have; a person removes it from there."""

    rounds = 15

    def run(self):
        if self.node == "n0":
            join("first")
            upload()
            say(start(), "first", inventory=inventory(installed()))
        join(self.node)
        return reconciler.reconcile, lambda: start(nodes=(self.node,), action=Action.REMOVE, released=False)

    def prepare(self):
        pass

    def holds(self, outcomes):
        assert unexpected(outcomes, RolloutInProgressError) == []
        return self.live().count() == 1


class PurgeAndStart(Game):
    """A rollout that deletes the artifact in the end ends, and another one begins to install it."""

    def run(self):
        join(f"{self.node}-other")
        uid = self.start(released=True)
        module = installed(content="c1", module_name=self.name)
        say(uid, self.node, inventory=inventory(module))
        gone = self.start(action=Action.REMOVE, purge=True, released=True)
        other = (f"{self.node}-other",)
        return (
            lambda: say(gone, self.node, inventory=inventory()),
            lambda: start(module_name=self.name, nodes=other, released=False),
        )

    def holds(self, outcomes):
        assert unexpected(outcomes, ArtifactNotFoundError) == []
        is_wanted = Operation.objects.filter(node=f"{self.node}-other", finished_at__isnull=True).exists()
        return Build.objects.filter(module_name=self.name).exists() == is_wanted


class LabelAndStart(Game):
    def prepare(self):
        super().prepare()
        label_node(self.node, {"tier": self.name})

    def run(self):
        request = RolloutRequest(
            action=Action.INSTALL,
            module_name=self.name,
            version=1,
            selector=Selector(labels={"tier": (self.name,)}),
            strategy=AT_ONCE,
        )
        return lambda: label_node(self.node, {}), lambda: start_rollout(request)

    def holds(self, outcomes):
        assert unexpected(outcomes, NoMatchError) == []
        return self.order(NodeLabelled, RolloutStarted)[-1] == "NodeLabelled"


GAMES = [
    DeleteAndStart,
    DeleteAndStartAsPlanned,
    RemoveAndInstallWhatNeedsIt,
    DecommissionAndStart,
    DecommissionAndRelease,
    FreezeAndRelease,
    DrainAndRelease,
    OfflineAndRelease,
    ApproveAndAbort,
    RollbackAndRetryInPlace,
    RollbackAndRetryOfWhatHasEnded,
    RetryInPlaceAndDecommission,
    RollbackAndDecommission,
    ReconcileAndStart,
    PurgeAndStart,
    LabelAndStart,
]


@pytest.mark.parametrize("game", GAMES)
def test_never_both(game, race):
    play(game, race, game.rounds)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("game", GAMES)
def test_never_both_in_200_rounds(game, race):
    play(game, race, 200)


def play(game, race, rounds):
    """Of three rounds, in two both have read before either writes, and in one they merely begin at the same moment."""
    broken = [number for number in range(rounds) if not is_won(game(number), race if number % 3 else start_at_once)]
    assert broken == [], f"{len(broken)} of {rounds} rounds"


def is_won(this, race):
    this.prepare()
    outcomes = race(*this.run())
    try:
        return this.holds(outcomes)
    except AssertionError:
        return False
    finally:
        this.finish()


def start_at_once(*functions):
    return at_once(*(lambda function=function: tried(function) for function in functions))


def tried(function):
    try:
        return function()
    except ApiError as error:
        return error


# --- What one does in the very moment in which the other has decided --------------------------------------------------


def test_what_a_person_has_begun_and_ended_is_not_undone_by_the_reconciler(meanwhile):
    fleet(1)
    say(start(), "n0000", inventory=inventory(installed()))
    join("late")

    def remove():
        say(start(nodes=("late",), action=Action.REMOVE), "late", inventory=inventory())

    meanwhile(start_module, remove)
    reconciler.reconcile()
    assert not Operation.objects.filter(node="late", action="install").exists()


def test_a_freeze_keeps_the_reconciler_from_starting(meanwhile):
    fleet(1)
    say(start(), "n0000", inventory=inventory(installed()))
    join("late")
    meanwhile(start_module, lambda: freeze_fleet("holidays"))
    reconciler.reconcile()
    assert not Operation.objects.filter(node="late").exists()


def test_what_is_put_right_meanwhile_has_not_drifted(meanwhile):
    fleet(1)
    say(start(), "n0000", inventory=inventory(installed()))
    join("n0000")  # it has nothing any more
    meanwhile(reconciler, lambda: start(nodes=("n0000",)))
    reconciler.reconcile()
    assert node("n0000").drifts == []


def test_what_is_being_loaded_is_not_deleted_from_the_disk(meanwhile):
    fleet(1)
    say(start(activation=Activation.FILES), "n0000", inventory=inventory(installed(loaded=False)))
    meanwhile(start_module, lambda: say(start(), "n0000", inventory=inventory(installed())))
    with pytest.raises(ModuleInUseError):
        local_node.remove(node("n0000"), "greet", 1)


def test_failures_that_a_retry_takes_back_are_not_accepted_by_a_resume(meanwhile):
    fleet(2)
    uid = start(careful=PAUSED)
    say(uid, "n0000", Phase.FAILED)
    meanwhile(rollouts, lambda: retry_rollout(uid))
    resume_rollout(uid)
    assert [each.event.forgiven for each in read(event_classes=[RolloutResumed])] == [(0,)]


def test_an_artifact_that_is_about_to_be_installed_is_not_deleted_over_http(meanwhile, alice):
    fleet(1)
    meanwhile(artifacts, lambda: start(released=False))
    answer = client_of(alice).delete("/v2/modules/user-defined/artifacts/greet/1")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "artifact_in_use")


def test_a_plan_of_what_was_deleted_is_not_started_over_http(meanwhile, alice):
    fleet(1)
    body = {"action": "install", "module_name": "greet", "version": 1}
    plan = client_of(alice).post("/v2/rollouts/plan", body, format="json").json()["plan_hash"]
    meanwhile(start_module, lambda: delete_artifact("greet", 1))
    answer = client_of(alice).post("/v2/rollouts", {**body, "plan_hash": plan}, format="json")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "artifact_not_found")


def test_a_plan_that_lost_a_node_is_not_started_over_http(meanwhile, alice):
    fleet(2)
    body = {"action": "install", "module_name": "greet", "version": 1}
    plan = client_of(alice).post("/v2/rollouts/plan", body, format="json").json()["plan_hash"]
    meanwhile(start_module, lambda: decommission_node("n0001"))
    answer = client_of(alice).post("/v2/rollouts", {**body, "plan_hash": plan}, format="json")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "plan_changed")
