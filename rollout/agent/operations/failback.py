"""Makes a former master the master again. Nothing is loaded, unloaded or restarted: only roles change.

From the first step that a client could notice, the file in the journal's directory says so, as before a restart.
"""

from dataclasses import replace

from rollout.agent.failover import failover
from rollout.agent.failover.failover import FailedOver
from rollout.agent.failover.shard import Failover, FailoverNotPossibleError
from rollout.agent.failure import Failure, MustWaitError, SkippedError
from rollout.agent.operations.activate import observed
from rollout.agent.operations.last_check import refuse_to_change
from rollout.agent.operations.operation import UNLOAD_SECONDS, Operation, Outcome
from rollout.agent.operations.settle import RestartedError, settle
from rollout.agent.restart.held import Held
from rollout.agent.server import place
from rollout.messages import Phase, Reason, Restart


def fail_back(operation: Operation) -> Outcome:
    """Give the role of the master to the replica that the command names, and let the server settle as a replica.

    Raises: `MustWaitError` if that is not possible now, `SkippedError` if it was tried and undone; `Failure`.
    """
    maintenance = operation.node.maintenance
    held = maintenance.held.of(operation.command)
    done = held.failed_over if held else None
    if held and held.failover and not done:
        done = _finished(operation, held, held.failover)
    done = done or _failed_over(operation)
    operation.watch.failover = done.as_reported
    try:
        _settle(operation)
    except Failure:
        maintenance.end()
        raise
    problem = maintenance.end()
    if done.now != operation.command.fails_back_to:
        problem = f"It should have been {operation.command.fails_back_to}. {problem}"
    message = " ".join(filter(None, (done.words, *done.remarks, problem)))
    return Outcome(message=message, restart=Restart(failover=done.as_reported))


def _failed_over(operation: Operation) -> FailedOver:
    node, command = operation.node, operation.command
    if other := node.maintenance.held.read():
        words = f"The restart for {other.module_name} {other.version} is not finished."
        raise MustWaitError(Reason.SERVER_NOT_READY, words)
    seconds = operation.deadline.step("Reading the server's state", UNLOAD_SECONDS).remaining()
    with node.server.session(seconds) as session:
        refuse_to_change(node, command, session)
        info = session.info("server", "replication")
    candidates = tuple(each.address for each in place.replicas(info))
    chosen = (command.pause_seconds, command.fails_back_to)
    failover.check(node.server, node.settings, candidates, *chosen)
    held = Held.begun(command, run_id=info.get("run_id", ""), way="none")
    operation.commit()
    try:
        done = failover.fail_over(
            node.server,
            node.settings,
            candidates,
            lambda begun: node.maintenance.held.write(replace(held, failover=begun)),
            *chosen,
        )
    except FailoverNotPossibleError as error:
        node.maintenance.end()
        raise SkippedError(error.reason, error.message) from error
    node.maintenance.held.write(replace(held, failed_over=done))
    return done


def _finished(operation: Operation, held: Held, begun: Failover) -> FailedOver:
    """Finish or undo what an agent has begun before it was killed."""
    node = operation.node
    done = failover.settle(node.server, node.settings, begun)
    if done is None:
        node.maintenance.end()
        raise SkippedError(Reason.FAILOVER_NOT_POSSIBLE, "The failover was interrupted, and has been undone.")
    node.maintenance.held.write(replace(held, failed_over=done))
    return done


def _settle(operation: Operation) -> None:
    """Wait until the server has been a replica in step for as long as after a load. Raises: `Failure`."""
    operation.report(Phase.SETTLING)
    while True:
        facts = observed(operation)
        module = next((each for each in facts.modules if each.name == operation.command.module_name), None)
        if module is None:  # as after a removal
            return None
        try:
            return settle(operation, facts.run_id, module)
        except RestartedError:
            continue
