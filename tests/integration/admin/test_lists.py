"""Lists take the same number of queries however long they are; the log is never counted."""

import json
from dataclasses import replace

import pytest
from django.contrib.admin import site
from django.db import connection
from django.test.utils import CaptureQueriesContext

from artifacts_app.events import ArtifactUploaded, artifact_stream
from eventstore import Append, append, head
from modules_app.events import ModuleRegistered, module_stream
from rollout.domain.node.events import NodeJoined, node_stream
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.events import RolloutStarted, rollout_stream
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Activation, NodeProfile
from rollout.process.advance import advance
from rollout.services.start import start_rollout
from tests.integration.admin.conftest import PLATFORM, text

pytestmark = pytest.mark.slow

#: Session, user and permissions aside, a list is counted twice and read once.
QUERIES = {
    "modules_app/module": 5,
    "artifacts_app/build": 6,
    "rollout/node": 6,
    "rollout/nodemodule": 5,
    "rollout/rollout": 5,
    "rollout/operation": 4,
    "eventstore/storedevent": 4,
}


def many_modules(count):
    append(
        *(
            Append(
                module_stream(f"{number:032}"),
                0,
                [ModuleRegistered(uid=f"{number:032}", module_name="greet", version=number, document={"key": "value"})],
            )
            for number in range(count)
        )
    )


def many_builds(count):
    build = ArtifactUploaded(
        module_name="greet",
        version=1,
        platform=PLATFORM,
        content_sha256="0" * 64,
        package_sha256="0" * 64,
        size=1,
        storage_key="",
        module_file="greet.so",
        members=(),
        dependencies=(),
        document={},
    )
    builds = [replace(build, version=number, storage_key=str(number)) for number in range(count)]
    append(*(Append(artifact_stream("greet", each.version), 0, [each]) for each in builds))


def many_nodes(count):
    profile = NodeProfile(platform=PLATFORM)
    names = [f"node{number}" for number in range(count)]
    append(*(Append(node_stream(each), 0, [NodeJoined(node=each, profile=profile)]) for each in names))


def many_operations(count):
    many_nodes(count)
    strategy = Strategy(canary=0, max_parallel=count)
    request = RolloutRequest(action=Action.REMOVE, module_name="greet", version=1, strategy=strategy)
    return start_rollout(request)


def many_placements(count):
    advance(many_operations(count))


def many_rollouts(count):
    started = RolloutStarted(
        rollout="",
        action=Action.REMOVE,
        module_name="greet",
        version=1,
        activation=Activation.LOAD,
        total=0,
        waves=(),
        named=False,
    )
    rollouts = [replace(started, rollout=f"{number:032}") for number in range(count)]
    append(*(Append(rollout_stream(each.rollout), 0, [each]) for each in rollouts))


FILL = {
    "modules_app/module": many_modules,
    "artifacts_app/build": many_builds,
    "rollout/node": many_nodes,
    "rollout/nodemodule": many_placements,
    "rollout/rollout": many_rollouts,
    "rollout/operation": many_operations,
    "eventstore/storedevent": many_modules,
}


@pytest.mark.parametrize("count", [3, 300])
@pytest.mark.parametrize("path", QUERIES)
def test_a_list_takes_as_many_queries_however_long_it_is(db, admin, path, count):
    FILL[path](count)
    with CaptureQueriesContext(connection) as queries:
        page = admin.get(f"/admin/{path}/")
    assert page.context["cl"].result_count >= min(count, 101)
    assert len(queries) == QUERIES[path], "\n".join(each["sql"] for each in queries)


def test_the_log_is_never_counted(db, admin):
    many_modules(150)
    with CaptureQueriesContext(connection) as queries:
        admin.get("/admin/eventstore/storedevent/?type=module.registered.v1")
    counts = [each["sql"] for each in queries if "COUNT(" in each["sql"]]
    assert all("LIMIT 101" in each for each in counts), counts


def test_the_log_goes_on_to_older_events(db, admin):
    many_modules(150)
    newest = admin.get("/admin/eventstore/storedevent/")
    first = [row.position for row in newest.context["cl"].result_list]
    older = admin.get("/admin/eventstore/storedevent/" + newest.context["older"])
    rest = [row.position for row in older.context["cl"].result_list]
    assert first + rest == list(range(first[0], 0, -1))
    assert (older.context["older"], "Newest" in text(older)) == ("", True)


def test_the_log_by_type(fleet, admin):
    page = admin.get("/admin/eventstore/storedevent/?type=rollout.started.v1")
    assert [row.stream for row in page.context["cl"].result_list] == [f"rollout:{fleet.rollout}"]


@pytest.mark.parametrize(("asked", "found"), [("node:node-a", {"node:node-a"}), ("module:", None), ("nothing", set())])
def test_the_log_by_stream(fleet, admin, asked, found):
    page = admin.get("/admin/eventstore/storedevent/", {"q": asked})
    streams = {row.stream for row in page.context["cl"].result_list}
    assert streams == ({f"module:{fleet.module}"} if found is None else found)


def test_an_event_of_an_unknown_type_is_shown(db, admin, monkeypatch):
    from eventstore import registry

    many_modules(1)
    monkeypatch.setattr(registry, "_classes", {})
    assert "module.registered.v1" in text(admin.get("/admin/eventstore/storedevent/"))
    assert "&quot;value&quot;" in text(admin.get(f"/admin/eventstore/storedevent/{head()}/change/"))


@pytest.mark.parametrize("data", ["no JSON <b>", "[]", "null", json.dumps({"a": "<script>"})])
def test_data_of_any_shape_is_shown(data):
    from console.admin import EventAdmin
    from eventstore import StoredEvent

    row = StoredEvent(data=data, metadata='["not", "ours"]')
    page = EventAdmin(StoredEvent, site)
    shown = page.pretty_data(row)
    assert shown.startswith("<pre>")
    assert "<script>" not in shown
    assert page.actor(row) == "-"


@pytest.mark.parametrize(
    ("path", "query", "count"),
    [
        ("rollout/node", "phase=online", 3),
        ("rollout/node", "phase=offline", 0),
        ("rollout/node", "q=node-a", 1),
        ("rollout/rollout", "phase=running", 1),
        ("rollout/rollout", "q=greet", 1),
        ("rollout/operation", "phase=failed", 1),
        ("rollout/operation", "node=node-a", 1),
        ("rollout/nodemodule", "state=in_sync", 1),
        ("rollout/nodemodule", "module_name=greet&version=3", 0),
        ("modules_app/module", "q=greet", 1),
        ("artifacts_app/build", "q=nothing", 0),
    ],
)
def test_lists_are_searched_and_filtered(fleet, admin, path, query, count):
    assert admin.get(f"/admin/{path}/?{query}").context["cl"].result_count == count


@pytest.mark.parametrize("path", ["rollout/rollout", "rollout/node", "rollout/operation", "modules_app/module"])
def test_lists_are_sorted_by_any_column(fleet, admin, path):
    for column in range(1, 9):
        assert admin.get(f"/admin/{path}/?o=-{column}").status_code == 200
