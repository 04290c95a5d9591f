"""The OpenAPI document of all routes, and the page that shows it."""

import re

import pytest
from drf_spectacular.drainage import GENERATOR_STATS, reset_generator_stats
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema


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
    ],
)
def test_our_lists_are_shown_as_the_pages_that_they_are(path):
    schema = SchemaGenerator().get_schema(request=None, public=True)
    shown = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    page = schema["components"]["schemas"][shown["$ref"].rpartition("/")[2]]
    assert page["properties"].keys() == {"results", "next"}


def test_it_is_answered_to_anybody(db, anyone):
    assert anyone.get("/schema").status_code == 200


def test_its_page_needs_no_other_host(db, anyone):
    page = anyone.get("/docs")
    assert page.status_code == 200
    assert re.findall(rb"""["'](?:https?:)?//[^"']+""", page.content) == []
