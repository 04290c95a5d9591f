"""No page grows with the fleet: 300 kB at most, and as many queries for a thousand nodes as for three."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from rollout.delivery import ingestion
from rollout.messages import Phase, Reason
from rollout.models import Operation
from rollout.process.advance import advance
from tests.integration.admin.conftest import signed_in
from tests.recorded_fleet import installed, inventory, join, report_of, start, upload
from tests.recorded_modules import module_object

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LARGEST = 300_000
PAGES = [
    "/admin/",
    "/admin/live",
    "/admin/?state=error&name=n0",
    "/admin/modules/",
    "/admin/modules/greet",
    "/admin/rollout/node/n0001/change/",
    "/admin/rollout/node/",
    "/admin/rollout/nodemodule/",
    "/admin/rollout/operation/",
    "/admin/rollout/rollout/",
    "/admin/eventstore/storedevent/",
    "/admin/eventstore/storedevent/?actor=system",
]


def grow(names):
    """So many nodes more; half of them get greet 1, a tenth fails."""
    for first in range(0, len(names), 200):
        join(*names[first : first + 200], server="valkey", labels={"zone": "eu", "rack": "r1"})
    uid = start(nodes=tuple(names), max_parallel=len(names))
    released = list(Operation.objects.filter(rollout=uid).order_by("ordinal").values_list("node", flat=True))
    half, tenth = len(released) // 2 + 1, len(released) // 10 + 1
    good = [report_of(uid, node, inventory=inventory(installed())) for node in released[:half]]
    bad = [
        report_of(uid, node, Phase.FAILED, reason=Reason.LOAD_FAILED, message="undefined symbol " * 5)
        for node in released[half : half + tenth]
    ]
    ingestion.record_reports([*good, *bad])
    advance(uid)


def looked_at(browser):
    """Bytes and queries of each page."""
    found = {}
    for path in PAGES:
        with CaptureQueriesContext(connection) as queries:
            response = browser.get(path)
        assert response.status_code == 200, path
        found[path] = (len(response.content), len(queries))
    return found


def test_no_page_grows_with_the_fleet(db, alice):
    upload()
    module_object("greet")
    browser = signed_in(alice)
    grow([f"n{number:04d}" for number in range(3)])
    looked_at(browser)  # what is kept in memory is there from now on
    few = looked_at(browser)
    grow([f"n{number:04d}" for number in range(3, 1000)])
    many = looked_at(browser)
    assert {path: queries for path, (_, queries) in many.items()} == {
        path: queries for path, (_, queries) in few.items()
    }
    assert {path: size for path, (size, _) in many.items() if size > LARGEST} == {}
