"""A domain for tests of the log: accounts, money in and money out.

Its event types and its projection are registered by the fixture `ledger` for one test, so that no other test and no
generated page sees them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db import connection, models

from eventstore import RecordedEvent, registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposited:
    cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    pass


class OverdrawnError(Exception):
    """More was asked for than is there."""


def decide_deposit_once(balance: int, cents: int) -> list[object]:
    """The command means: there shall be at least so much. Given again, it does nothing."""
    if cents < 0:
        raise OverdrawnError
    return [Deposited(cents=cents - balance)] if cents > balance else []


def evolve(balance: int, event: object) -> int:
    return balance + event.cents if isinstance(event, Deposited) else balance


def register_events() -> None:
    for name, event_class in (
        ("ledger.opened.v1", Opened),
        ("ledger.deposited.v3", Deposited),
        ("ledger.closed.v1", Closed),
    ):
        registry.register_event(name, event_class)
    registry.upcaster("ledger.deposited.v1", to="ledger.deposited.v2")(_name_the_unit)
    registry.upcaster("ledger.deposited.v2", to="ledger.deposited.v3")(_count_in_cents)


def actor_with_kind(name: str, stream: str, metadata: Mapping[str, str]) -> str:
    """In older logs, all were people."""
    return f"user:{metadata.get('actor', '')}"


def _name_the_unit(data: dict[str, Any]) -> dict[str, Any]:
    return {"euros": data["amount"]}


def _count_in_cents(data: dict[str, Any]) -> dict[str, Any]:
    return {"cents": data["euros"] * 100}


class Balance(models.Model):
    """Unmanaged: the table is made in the test's own transaction."""

    account = models.CharField(primary_key=True, max_length=300)
    cents = models.BigIntegerField()
    objects: "ClassVar[models.Manager[Balance]]" = models.Manager()  # mypy knows only the managers of installed apps

    class Meta:
        app_label = "ledger"
        managed = False

    def __str__(self) -> str:
        return f"{self.account}: {self.cents}"


def create_table() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE ledger_balance (account varchar(300) PRIMARY KEY, cents bigint NOT NULL)")


class Balances:
    """Money per account; keeps the size of each batch that it was told of."""

    name = "balances"
    version = 1
    handles = (Deposited,)
    tables = (Balance,)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        self.batches.append(len(batch))
        added = Counter[str]()
        for each in batch:
            added[each.stream] += each.event.cents
        known = Balance.objects.in_bulk(list(added))
        Balance.objects.bulk_create(
            [
                Balance(account=account, cents=cents + (known[account].cents if account in known else 0))
                for account, cents in added.items()
            ],
            update_conflicts=True,
            update_fields=["cents"],
            unique_fields=["account"],
        )
