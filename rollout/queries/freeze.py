"""Whether the fleet is frozen."""

from typing import Any

from api.fields import rfc3339
from eventstore import in_words
from rollout.domain.errors import FleetFrozenError
from rollout.models import FleetFreeze


def refuse_if_frozen() -> None:
    """Raises: `FleetFrozenError`."""
    if (freeze := freeze_document())["frozen"]:
        raise FleetFrozenError(f"The fleet is frozen by {in_words(freeze['actor'])}: {freeze['reason']}")


def freeze_document() -> dict[str, Any]:
    """Whether the fleet is frozen; who did it and why, also after it was lifted."""
    row = FleetFreeze.objects.filter(id=1).first()
    return {
        "frozen": row is not None and row.frozen,
        "reason": row.reason if row else None,
        "actor": row.actor if row else None,
        "frozen_at": rfc3339(row.frozen_at) if row else None,
        "thawed_at": rfc3339(row.thawed_at) if row and row.thawed_at else None,
    }
