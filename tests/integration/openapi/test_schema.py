"""The OpenAPI document of all routes, and the page that shows it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from drf_spectacular.drainage import GENERATOR_STATS, reset_generator_stats
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer
from drf_spectacular.validation import validate_schema

from tests.fleet import ROOT


def test_it_is_made_without_a_warning():
    reset_generator_stats()
    schema = SchemaGenerator().get_schema(request=None, public=True)
    assert not GENERATOR_STATS
    validate_schema(schema)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/events",
        "/v2/modules/user-defined",
        "/v2/modules/user-defined/artifacts",
        "/v2/nodes",
        "/v2/rollouts",
        "/v2/rollouts/{uid}/nodes",
        "/v2/webhooks",
    ],
)
def test_our_lists_are_shown_as_the_pages_that_they_are(path):
    schema = SchemaGenerator().get_schema(request=None, public=True)
    shown = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    page = schema["components"]["schemas"][shown["$ref"].rpartition("/")[2]]
    assert page["properties"].keys() == {"results", "next"}


FIRST_REQUESTS = """
import sys
import threading

import django

django.setup()
from django.test import RequestFactory
from django.urls import resolve

view, start = resolve("/schema").func, threading.Barrier(8)
sys.setswitchinterval(1e-6)


def get():
    start.wait()
    view(RequestFactory().get("/schema")).render()


threads = [threading.Thread(target=get) for _ in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_its_first_requests_may_come_at_once():
    """In a process of its own: here, it was made before."""
    done = subprocess.run([sys.executable, "-c", FIRST_REQUESTS], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_answered_to_anybody(db, anyone):
    assert anyone.get("/schema").status_code == 200


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/vnd.oai.openapi", "application/vnd.oai.openapi"),
        ("application/yaml", "application/yaml"),
    ],
)
def test_it_is_in_the_format_that_is_asked_for(db, anyone, accept, media_type):
    answer = anyone.get("/schema", headers={"Accept": accept})
    assert answer.headers["Content-Type"].partition(";")[0] == media_type


def test_the_committed_one_is_current():
    """`make docs` writes it."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    written = OpenApiYamlRenderer().render(schema, renderer_context={})
    assert Path("docs/reference/openapi.yaml").read_bytes() == written


def test_each_operation_says_what_it_does_and_what_it_may_refuse():
    schema = SchemaGenerator().get_schema(request=None, public=True)
    operations = [each for path in schema["paths"].values() for each in path.values()]
    assert all(each["summary"] and each["description"] and each["tags"] for each in operations)
    assert all({"400", "429"} <= each["responses"].keys() for each in operations)


def test_its_page_needs_no_other_host(db, anyone):
    page = anyone.get("/docs")
    assert page.status_code == 200
    assert re.findall(rb"""["'](?:https?:)?//[^"']+""", page.content) == []
