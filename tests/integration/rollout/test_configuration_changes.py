"""What agents report of their servers' configuration: each change is one event, and the node shows what is to do."""

import pytest
from msgspec import to_builtins

from eventstore import read
from rollout.delivery import ingestion
from rollout.domain.node.events import NodeConfigChangedOutside, NodePersistenceResolved
from rollout.domain.node.pace import BURST
from rollout.messages import ChangeKind, ConfigurationChange, ServerState
from rollout.models import Node, NodeFacts
from tests.recorded_fleet import fleet, heartbeat_of
from ui.cells import page_url

pytestmark = pytest.mark.django_db

OUTSIDE = ConfigurationChange(id="1", kind=ChangeKind.OUTSIDE, at=1e9, message="a.conf: added `loadmodule /x.so`")
RESOLVED = ConfigurationChange(id="2", kind=ChangeKind.RESOLVED, at=1e9 + 1, message="Removed the line of greet.")


def beat(*changes, **more):
    facts = to_builtins(ServerState(run_id="a", configuration_changes=changes, **more))
    ingestion.record_heartbeats([heartbeat_of("n0000") | {"facts": facts, "doctor": ()}])


def events():
    recorded = read(event_classes=[NodeConfigChangedOutside, NodePersistenceResolved])
    return [(type(each.event), each.event.message) for each in recorded]


def test_each_change_is_recorded_once():
    fleet(1)
    beat(OUTSIDE)
    for _ in range(3):
        beat(OUTSIDE, RESOLVED)
    assert events() == [
        (NodeConfigChangedOutside, OUTSIDE.message),
        (NodePersistenceResolved, RESOLVED.message),
    ]


def test_a_node_that_changes_all_the_time_does_not_fill_the_log():
    fleet(1)
    for number in range(BURST + 5):
        beat(ConfigurationChange(id=f"c{number}", kind=ChangeKind.OUTSIDE, at=1e9, message="changed"))
    assert len(events()) == BURST


def test_the_console_shows_them(client, alice):
    fleet(1)
    beat(OUTSIDE)
    client.force_login(alice)
    page = client.get(page_url("rollout_node", "n0000")).content.decode()
    assert "Changes of the configuration" in page
    assert "loadmodule /x.so" in page


def test_the_node_shows_owner_changes_and_what_is_to_do(admin):
    fleet(1)
    beat(OUTSIDE, persistence="external", to_do="Add the line `loadmodule /x.so`.")
    state = admin.get("/v2/nodes/n0000").json()["server_state"]
    assert (state["persistence"], state["to_do"]) == ("external", "Add the line `loadmodule /x.so`.")
    assert state["configuration_changes"] == [
        {"id": "1", "kind": "outside", "at": "2001-09-09T01:46:40Z", "message": OUTSIDE.message}
    ]


def test_facts_of_an_earlier_release_are_shown_too(admin):
    fleet(1)
    beat()
    row = NodeFacts.objects.get()
    for name in ("persistence", "to_do", "configuration_changes"):
        del row.server[name]
    row.save()
    state = admin.get("/v2/nodes/n0000").json()["server_state"]
    assert (state["persistence"], state["to_do"], state["configuration_changes"]) == ("", "", [])


def test_a_rebuild_remembers_them():
    fleet(1)
    beat(OUTSIDE, RESOLVED)
    assert Node.objects.get().configuration_changes == ["1", "2"]
