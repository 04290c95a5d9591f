"""Answers about the freeze of the fleet."""

from typing import Any

from api.fields import rfc3339
from eventstore import in_words
from rollout.domain.errors import FleetFrozenError
from rollout.models import FleetFreeze


def newest_freeze() -> FleetFreeze | None:
    """Return the newest freeze, also if it was lifted. None if the fleet was never frozen."""
    return FleetFreeze.objects.filter(id=1).first()


def current_freeze() -> FleetFreeze | None:
    """Return the freeze that holds now, None if the fleet is not frozen."""
    row = newest_freeze()
    return row if row is not None and row.frozen else None


def freeze_in_words() -> str:
    """Return who froze the fleet, when and why; empty if the fleet is not frozen."""
    row = current_freeze()
    return f"by {in_words(row.actor)} since {rfc3339(row.frozen_at)}: {row.reason}" if row else ""


def refuse_if_frozen() -> None:
    """Raise `FleetFrozenError` if the fleet is frozen."""
    if row := current_freeze():
        raise FleetFrozenError(f"The fleet is frozen by {in_words(row.actor)}: {row.reason}")


def freeze_document() -> dict[str, Any]:
    """Return the newest freeze as JSON, also if it was lifted."""
    row = newest_freeze()
    return {
        "frozen": row is not None and row.frozen,
        "reason": row.reason if row else None,
        "actor": row.actor if row else None,
        "frozen_at": rfc3339(row.frozen_at) if row else None,
        "thawed_at": rfc3339(row.thawed_at) if row and row.thawed_at else None,
    }
