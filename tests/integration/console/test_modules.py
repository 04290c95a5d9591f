"""The modules, and the page of one: versions, builds, who has it, its rollouts."""

import html

from django.utils import timezone

from artifacts_app.selectors import builds_of
from modules_app.services import register_module
from rollout.models import ScratchSuccess
from tests.integration.admin.conftest import PLATFORM, described, text
from tests.integration.console.conftest import shown_text


def test_it_works(fleet, admin):
    page = shown_text(admin.get("/admin/modules/greet"))
    assert "Version 2 (1.2.3)" in page
    assert "1 error 1 pending 1 in sync" in page
    assert PLATFORM in page
    assert "install 2 running" in page


def test_what_scratch_servers_have_shown(fleet, admin):
    unknown = "Not known yet: the first node's scratch server will find out."
    start = "/admin/rollouts/start?module=greet&version=2&supersede=on"
    assert "Seen in scratch servers Not known yet" in shown_text(admin.get("/admin/modules/greet"))
    assert unknown in html.unescape(shown_text(admin.get(start)))
    for each in {each.content_sha256 for each in builds_of("greet")}:
        learned = {"has_types": True, "aux_data": False, "commands": ["greet.hello"], "options": []}
        ScratchSuccess.objects.create(
            key=each, content_sha256=each, node="node-a", learned=learned, recorded_at=timezone.now()
        )
    for path in ("/admin/modules/greet", start):
        page = shown_text(admin.get(path))
        assert (
            "It has data types, as node-a says: it can be upgraded and removed only by a restart of the server." in page
        )
        assert "It adds 1 command: greet.hello." in page


def test_roll_out_is_the_next_step(fleet, admin, viewer):
    start = "/admin/rollouts/start?module=greet&amp;version=2"
    for path in ("/admin/modules/", "/admin/modules/greet"):
        assert start in text(admin.get(path))
        assert start not in text(viewer.get(path))


def test_a_version_without_a_package_cannot_be_rolled_out(fleet, admin):
    register_module(described("greet", 3))
    page = text(admin.get("/admin/modules/greet"))
    assert "Version 3" in page
    assert "version=3" not in page
    assert "This version has no package" in page


def test_the_list_has_all_that_have_an_object_a_package_or_a_node(fleet, viewer):
    register_module(described("bloom", 1))
    shown = viewer.get("/admin/modules/").context["shown"]
    assert [(each.name, each.versions, each.newest_packaged, each.nodes) for each in shown] == [
        ("bloom", [1], None, 0),
        ("greet", [2], 2, 3),
    ]
    assert [each.name for each in viewer.get("/admin/modules/?q=BLO").context["shown"]] == ["bloom"]


def test_a_module_that_nobody_knows_is_not_there(fleet, admin):
    response = admin.get("/admin/modules/nothing")
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")
