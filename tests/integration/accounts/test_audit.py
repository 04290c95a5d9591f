"""What the log holds of accounts."""

from accounts import services
from accounts.roles import Role
from accounts.services import UserChanges
from eventstore import read
from eventstore.registry import encode
from tests.plugins.cast import PASSWORD


def test_neither_email_nor_password_nor_hash(alice, bob):
    services.update_user(bob.uid, UserChanges(password="another horse 2", email="robert@example.com"), by=alice)
    former = bob.password
    bob.refresh_from_db()
    services.delete_user(bob.uid, by=alice)
    text = "".join(encode(each.event) + str(each.metadata) for each in read())
    for secret in (PASSWORD, "another horse 2", "example.com", former, bob.password):
        assert secret not in text


def test_the_names_of_what_changed(alice, bob):
    services.update_user(bob.uid, UserChanges(password="another horse 2", role=Role.DB_VIEWER), by=alice)
    recorded = list(read())[-1]
    assert recorded.type == "account.updated.v1"
    assert recorded.event.changed == ("password", "role")
