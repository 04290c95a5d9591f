"""Asks nodes to replace their keys, until they have."""

import time
from collections.abc import Iterable

import msgspec
from celery import current_app

from rollout.domain.node.state import Identity
from rollout.messages import cancel_queue_for
from rollout.models import Node
from rollout.queries.trust import control_secrets
from rollout.signing import Purpose, key_id

#: Seconds until a node is asked again.
AGAIN_SECONDS = 30.0


class Rekeys:
    """Call `publish` now and then. Several relays may ask the same node: it replaces the key that the request names, once."""

    def __init__(self) -> None:
        #: By node: when it was asked last.
        self._asked: dict[str, float] = {}

    def publish(self) -> int:
        """Ask the nodes that are due. Return their number. Raises: the errors of the broker's client."""
        asked = dict(_requested())
        now = time.monotonic()
        self._asked = {name: at for name, at in self._asked.items() if name in asked and now - at < AGAIN_SECONDS}
        due = {name: key for name, key in asked.items() if name not in self._asked}
        if due:
            with current_app.producer_or_acquire() as producer:
                for name, public_key in due.items():
                    envelope = control_secrets()[0].sign(Purpose.REKEY, name, {"replaces": key_id(public_key)})
                    queue = cancel_queue_for(name)
                    producer.publish(msgspec.to_builtins(envelope), exchange="", routing_key=queue, serializer="json")
                    self._asked[name] = now
        return len(due)


def _requested() -> Iterable[tuple[str, str]]:
    rows = Node.objects.filter(rekey_requested=True, online=True, identity=Identity.SIGNED)
    return ((name, keys[0][0]) for name, keys in rows.values_list("name", "keys"))
