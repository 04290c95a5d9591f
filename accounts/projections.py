"""Writes the names in user events to `AccountName`."""

from collections.abc import Sequence

from accounts.events import UserCreated, UserUpdated
from accounts.models import AccountName
from eventstore import RecordedEvent


class UserNameProjection:
    """Adds names and deletes none: the first user keeps a name. It owns no table, so a rebuild deletes no names."""

    name = "account_names"
    version = 1
    handles = (UserCreated, UserUpdated)
    tables = ()

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        names = [AccountName(name=each.event.name, uid=each.event.uid) for each in batch if each.event.name]
        AccountName.objects.bulk_create(names, ignore_conflicts=True)
