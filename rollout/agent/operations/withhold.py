"""Before a replica is restarted with another version: it must not become the master while other copies have the former one."""

from rollout.agent.operations.operation import Operation
from rollout.agent.operations.way_back import former_of
from rollout.agent.restart.withheld import Hold
from rollout.agent.server import place
from rollout.agent.server.session import LoadedModule


def withhold(operation: Operation, module: LoadedModule) -> None:
    """Keep the server from becoming the master, if it is a replica and `module`, which may have data types, takes the place of
    another version. A master that reads values of a newer version than its own ends, and one that wrote them ends its replicas.

    Of every server, note that the control plane says when the data from before are not needed any more, also those of other files
    of the same version.

    Raises: `Failure`, `RefusedError`, `OSError`.
    """
    node, command, former = operation.node, operation.command, operation.before.loaded
    if (
        former is None
        or operation.has_types is False
        or (former.version == module.version and not former_of(operation))
    ):
        return
    if not node.holds.can_ask:
        with node.server.session() as session:
            if place.role(session.info("replication")) != "replica":
                return
        operation.watch.remarks.append(
            "The server may become the master while the versions in its shard differ: without an identity, the agent cannot ask the "
            "control plane when that ends."
        )
        return
    node.holds.begin(Hold(rollout=command.rollout, module_name=command.module_name, version=module.version))
