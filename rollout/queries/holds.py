"""What a node still has to hold after an operation: its server's role, and the data from before."""

from collections.abc import Mapping
from typing import Any

import msgspec

from eventstore import database_now
from rollout.domain.rollout.events import RolloutPhase
from rollout.domain.withholding import Copy, must_withhold
from rollout.messages import Activation, Name
from rollout.messages.fields import Number
from rollout.models import Liveness, NodeFacts, NodeModule, Operation, Rollout, ShardMember
from rollout.queries.trust import said
from rollout.queries.turns import SILENT_INTERVALS, is_heard
from rollout.signing import Envelope, Purpose


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a node asks about: an operation that has put `version` of the module in the place of another one. `sent_at`: by its
    clock, Unix time in seconds."""

    rollout: Name
    module_name: Name
    version: Number
    sent_at: float


def still_held(envelope: Envelope) -> dict[str, bool]:
    """Return what the node that has signed the envelope has to hold. Nine queries.

    `withhold`: its server must not become the master. `keep_data`: the rollout has not ended, or is not known; or it has ended and no
    person has accepted that there is no way back: then the node needs these data for it.
    Raises: `UntrustedNodeError`, `InvalidRolloutError`.
    """
    held = said(envelope, Purpose.HOLDS, Held)
    own = Operation.attempts.filter(rollout=held.rollout, node=envelope.node, module_name=held.module_name)
    row = Rollout.objects.only("phase", "one_way").filter(uid__in=own.values("rollout")).first()
    is_live = row is None or not RolloutPhase(row.phase).is_final
    is_one_way = row is not None and row.one_way is not None and not row.one_way["promoted"]
    withhold = _must_withhold(envelope.node, held, waits_for_person=is_live and is_one_way)
    return {"withhold": withhold, "keep_data": is_live or is_one_way}


def _must_withhold(node: str, held: Held, *, waits_for_person: bool) -> bool:
    place = ShardMember.objects.filter(node=node, role="replica").only("shard", "master", "unmanaged_master").first()
    if place is None or not (place.master or place.unmanaged_master):
        return False
    # Not those of which nothing but their own word says that they belong to the shard.
    others = ShardMember.objects.filter(
        shard=place.shard, master=place.master, unmanaged_master=place.unmanaged_master, role="replica", doubted=False
    )
    names = [*others.exclude(node=node).values_list("node", flat=True)]
    nodes = [*names, place.master]
    rows = NodeModule.objects.filter(module_name=held.module_name, observed=Activation.LOAD, node__in=nodes)
    loaded = dict(rows.values_list("node", "version"))
    servers = dict(NodeFacts.objects.filter(node__in=nodes).values_list("node", "server"))
    now = database_now()
    lives = Liveness.objects.filter(node__in=nodes).only("last_seen", "facts_at", "interval_seconds")
    heard = {each.node for each in lives if is_heard(each, SILENT_INTERVALS, now)}
    up = {name: server for name, server in servers.items() if name in heard and not server.get("problem")}
    master = Copy(version=loaded.get(place.master), serves=place.master in up) if place.master else None
    copies = [Copy(version=loaded.get(each), serves=each in up and _may_take_over(up[each], master)) for each in names]
    return must_withhold(held.version, master, copies, waits_for_person=waits_for_person)


def _may_take_over(server: Mapping[str, Any], master: Copy | None) -> bool:
    is_away = server.get("withheld") or server.get("maintenance") or server.get("loading")
    # While the master is away, no link is up.
    is_in_step = server.get("link_status") == "up" or not (master and master.serves)
    return not is_away and is_in_step
