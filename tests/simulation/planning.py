"""The restarts of a plan from what is in memory: `rollout.planning.restarts` finds the same in the database."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rollout.domain.request import RolloutRequest
from rollout.domain.restarts import Permission, failover_before, seconds_away
from rollout.messages import Action, Activation, Reason, Ways
from rollout.planning.plan import PlannedRestart
from rollout.planning.restarts import Restarts
from rollout.queries.restarts import deciding, refused_restarts
from tests.simulation.snapshot import FactsInMemory

if TYPE_CHECKING:
    from tests.simulation.control_plane import ControlPlane


def restarts_of(request: RolloutRequest, nodes: Sequence[str], world: "ControlPlane") -> Restarts:
    if request.action != Action.INSTALL or request.activation != Activation.LOAD:
        return Restarts()
    loaded = FactsInMemory(world.rows).loaded(request.module_name, nodes)
    needed = {name for name in nodes if loaded.get(name) != request.version}
    if request.ways != Ways.RESTART:
        needed &= {name for name in nodes if loaded.get(name) in world.typed} | world.stock_servers
    if request.ways == Ways.LOAD:
        return Restarts(skips=dict.fromkeys(sorted(needed), (Reason.RESTART_REQUIRED, "")))
    members = world.rows.members
    shards = {members[name].shard for name in needed if name in members}
    changing = (name for name in nodes if loaded.get(name) != request.version)
    needed |= {name for name in changing if name in members and members[name].shard in shards}
    permission = Permission(may_interrupt=request.may_interrupt, may_discard_data=request.may_discard_data)
    servers = FactsInMemory(world.rows).servers(deciding(needed, members))
    skips = refused_restarts(sorted(needed), members, servers, permission)
    planned = {
        name: PlannedRestart(away_seconds=seconds_away(servers[name]), failover=failover_before(servers[name]))
        for name in sorted(needed - skips.keys())
    }
    return Restarts(planned=planned, skips=skips)
