"""The log by actor and by time."""

import json
from datetime import timedelta

import pytest

from eventstore import StoredEvent

LOG = "/admin/eventstore/storedevent/"


def positions(browser, **query):
    return [row.position for row in browser.get(LOG, query).context["cl"].result_list]


def test_by_actor(fleet, viewer):
    rows = viewer.get(LOG, {"actor": "olivia"}).context["cl"].result_list
    assert {json.loads(row.metadata)["actor"] for row in rows} == {"user:olivia"}
    assert positions(viewer, actor="nobody") == []


def test_by_time(fleet, viewer):
    first, last = StoredEvent.objects.earliest("position"), StoredEvent.objects.latest("position")
    before = (first.recorded_at - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M")
    after = (last.recorded_at + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M")
    every = list(range(last.position, 0, -1))
    assert positions(viewer, since=before, until=after) == every
    assert positions(viewer, since=after) == positions(viewer, until=before) == []


def test_filters_go_together(fleet, viewer):
    rows = viewer.get(LOG, {"actor": "olivia", "type": "rollout.started.v1"}).context["cl"].result_list
    assert [row.stream for row in rows] == [f"rollout:{fleet.rollout}"]


@pytest.mark.parametrize("moment", ["yesterday", "2026-13-01T00:00", "9999-12-31T23:59", "0001-01-01T00:00+23:59"])
def test_a_moment_that_is_none_is_no_error(fleet, viewer, moment):
    assert viewer.get(LOG, {"since": moment}, follow=True).status_code == 200
