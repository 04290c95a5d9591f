"""Checks of what a restart of the server by the agent needs, and the failover before it."""

from rollout.agent.doctor.host import Host
from rollout.agent.doctor.outcome import Outcome, UnknownError, passed, warned
from rollout.agent.failover.failover import check
from rollout.agent.failover.shard import FailoverNotPossibleError, NotYetError
from rollout.agent.failure import Failure
from rollout.agent.restart.supervision import supervision_of
from rollout.agent.server import place
from rollout.agent.server.session import RefusedError, Server


def restart(host: Host) -> Outcome:
    settings = host.settings
    if settings.restart == "none" or (settings.restart is None and settings.access != "restart"):
        return passed("The agent never restarts the server.")
    with host.session() as session:
        try:
            info = session.info("server") | session.info("memory")
        except RefusedError:
            info = host.info
    found = supervision_of(settings, info, host.root)
    if found.problem:
        return warned(found.problem, found.fix)  # loads do not need it
    match found.way:
        case "external":
            return passed("A person or a tool restarts the server, and the agent waits for that.")
        case "command":
            return passed(f"{(settings.restart_command or ('',))[0]} restarts the server.")
        case "systemd":
            return passed(f"systemd starts {found.unit} again.")
        case _:
            return passed(f"{found.unit or 'What supervises the server'} starts it again after SHUTDOWN.")


def failover(host: Host) -> Outcome:
    settings = host.settings
    if settings.failover == "none":
        return passed("No replica becomes the master before a restart: MODFLEET_FAILOVER is none.")
    with host.session() as session:
        info = session.info("replication")
    replicas = [each.address for each in place.replicas(info)]
    if place.role(info) != "master" or not replicas:
        return passed("Not needed now: the server is no master with replicas.")
    try:
        check(Server(settings), settings, replicas)
    except NotYetError as error:
        raise UnknownError(error.message) from error
    except FailoverNotPossibleError as error:
        return warned("The server cannot be restarted now, because no replica can become the master.", error.message)
    except Failure as error:
        raise UnknownError(error.message) from error
    return passed(f"A replica can become the master: MODFLEET_FAILOVER is {settings.failover}.")
