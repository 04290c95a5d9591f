"""Every body in the API's documents has an example, and each is what its own schema says."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from drf_spectacular.generators import SchemaGenerator


@pytest.fixture(scope="module")
def document():
    return SchemaGenerator().get_schema(request=None, public=True)


def contents(document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each body: the operation and which of its bodies, the media type, and what the document says of it."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
            for which, body in bodies.items():
                for media_type, content in body.get("content", {}).items():
                    yield f"{method} {path} {which}", media_type, content


def test_every_body_has_an_example(document):
    assert [name for name, _, content in contents(document) if "example" not in content] == []


def test_each_example_is_what_its_schema_says(document):
    for name, _, content in contents(document):
        schema = nullable({**content["schema"], "components": document["components"]})
        errors = jsonschema.Draft202012Validator(schema).iter_errors(content["example"])
        assert [each.message for each in errors] == [], name


def nullable(schema):
    """The schema in the words of JSON Schema, which OpenAPI 3.0 does not use for what may be null."""
    match schema:
        case {"nullable": True}:
            return {"anyOf": [nullable({**schema, "nullable": False}), {"type": "null"}]}
        case dict():
            return {name: nullable(each) for name, each in schema.items()}
        case list():
            return [nullable(each) for each in schema]
    return schema
