"""POST /v2/modules/user-defined: a row of the vendor's table of status codes each, and what stands beside it."""

import json
import re

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_all
from hypothesis import strategies as st

from accounts import services as accounts
from eventstore import head, load
from modules_app.events import module_stream
from modules_app.models import Module
from modules_app.services import module_uid
from tests.plugins.cast import client_of
from tests.plugins.packages import module_object

URL = "/v2/modules/user-defined"
REQUIRED = sorted(module_object())


@pytest.fixture
def post(admin):
    def posted(body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return admin.post(URL, data, content_type="application/json", headers=headers)

    return posted


def refused(response, status, code):
    assert (response.status_code, response.json()["error_code"]) == (status, code)
    assert response.json().keys() == {"error_code", "description"}
    assert response["Content-Length"] == str(len(response.content))
    return response.json()["description"]


def test_it_works(post):
    response = post(module_object(author="author name"))
    assert response.status_code == 200
    assert re.fullmatch("[0-9a-f]{32}", response.json()["uid"])
    assert response.json() == {
        **module_object(author="author name"),
        "uid": module_uid("TestModule", 1),
        "is_bundled": False,
    }
    assert response["Content-Length"] == str(len(response.content))


def test_a_version_as_the_packer_writes_it(post):
    response = post(module_object(version=10203.0))
    assert re.search(rb'"version":10203[,}]', response.content)
    assert Module.objects.get().version == 10203


def test_unknown_keys_are_kept(post):
    extra = {"speedb_git_sha": "", "nested": {"a": [1, None, 1.5]}, "optional-dependencies": {}}
    uid = post(module_object(**extra)).json()["uid"]
    assert extra.items() <= post(module_object(**extra)).json().items()
    assert extra.items() <= load(module_stream(uid))[0].event.document.items()


def test_the_same_again_is_the_same_object_and_no_event(post):
    first = post(module_object())
    position = head()
    again = post(dict(reversed(module_object(version=1.0).items())))
    assert (again.status_code, again.json()) == (200, first.json())
    assert head() == position


def test_another_body_is_refused(post):
    post(module_object())
    position = head()
    refused(post(module_object(display_name="another")), 406, "module_exists")
    assert head() == position


def test_an_empty_object_is_refused(post):
    description = refused(post({}), 406, "invalid_module")
    assert all(f"{name}: is missing" in description for name in REQUIRED)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_field_is_refused(post, name):
    body = module_object()
    del body[name]
    assert refused(post(body), 406, "invalid_module") == f"{name}: is missing"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "1"}, "version: must be a whole number"),
        ({"version": 1.5}, "version: must be a whole number"),
        ({"version": True}, "version: must be a whole number"),
        ({"version": -1}, "version: must be between 0"),
        ({"version": 2**31}, "version: must be between 0"),
        ({"module_name": "a/b"}, "module_name: must be"),
        ({"module_name": ""}, "module_name: must be"),
        ({"module_name": "a:b"}, "module_name: must be"),
        ({"semantic_version": ""}, "semantic_version: must not be empty"),
        ({"commands": {}}, "commands: must be a list"),
        ({"commands": [{}]}, "commands[0].command_name: is missing"),
        ({"capabilities": "types"}, "capabilities: must be a list"),
        ({"command_line_args": "a\nloadmodule /evil.so"}, "command_line_args: must not contain line breaks"),
        ({"min_redis_version": "latest"}, "min_redis_version: must be a version"),
        ({"display_name": 7}, "display_name: must be a text"),
    ],
)
def test_an_invalid_value_is_refused(post, changes, words):
    assert words in refused(post(module_object(**changes)), 406, "invalid_module")
    assert not Module.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\u0000"}',
        b'{"a": "\\ud800"}',
        b'{"a": 99999999999999999999}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_module_object_is_refused(post, body):
    refused(post(body), 406, "invalid_module")


def test_a_body_that_is_too_large_is_refused(post):
    refused(post(module_object(description="x" * 2_000_000)), 413, "payload_too_large")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_is_not_json_is_refused(admin, content_type):
    refused(admin.post(URL, b"x=1", content_type=content_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("charset", ["utf-16", "bz2_codec", "latin-1"])
def test_json_in_another_charset_is_refused(admin, charset):
    data = json.dumps(module_object()).encode()
    refused(admin.post(URL, data, content_type=f"application/json; charset={charset}"), 415, "unsupported_media_type")


def test_with_the_gate_closed_even_an_admin_is_refused(admin, post):
    accounts.update_cluster_settings(allow_modules_upload=False)
    refused(post(module_object()), 403, "modules_upload_disabled")
    assert admin.get(URL).status_code == 200


def test_the_gate_opens_again(post):
    for allowed in (False, True):
        accounts.update_cluster_settings(allow_modules_upload=allowed)
    assert post(module_object()).status_code == 200


def test_the_role_counts_before_the_gate(bob):
    accounts.update_cluster_settings(allow_modules_upload=False)
    refused(client_of(bob).post(URL, module_object(), format="json"), 403, "permission_denied")


def test_deleted_and_registered_again_continues_the_stream(admin, post):
    uid = post(module_object()).json()["uid"]
    admin.delete(f"{URL}/{uid}")
    assert post(module_object(display_name="another")).json()["uid"] == uid
    assert [each.type for each in load(module_stream(uid))] == [
        "module.registered.v1",
        "module.deleted.v1",
        "module.registered.v1",
    ]


def test_the_actor_is_recorded(post, alice):
    uid = post(module_object()).json()["uid"]
    assert load(module_stream(uid))[0].actor == "user:alice"
    assert Module.objects.get(uid=uid).registered_by == "alice"


def test_with_an_idempotency_key_the_answer_is_kept(admin, post):
    key = {"Idempotency-Key": "k1"}
    first = post(module_object(), **key)
    admin.delete(f"{URL}/{first.json()['uid']}")
    again = post(module_object(), **key)
    assert (again.status_code, again.content, again["Idempotency-Replayed"]) == (200, first.content, "true")
    assert not Module.objects.exists()


def test_an_idempotency_key_for_another_body_is_refused(post):
    post(module_object(), **{"Idempotency-Key": "k1"})
    refused(post(module_object(version=2), **{"Idempotency-Key": "k1"}), 406, "idempotency_key_reused")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
CHANGES = st.dictionaries(st.sampled_from([*REQUIRED, "dependencies", "crdb", "sha256", "x"]), JSON, max_size=5)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@for_all(
    CHANGES.map(lambda changes: json.dumps(module_object(**changes)).encode()) | JSON.map(json.dumps).map(str.encode)
)
def test_no_body_is_an_error_of_ours(post, body):
    position = head()
    response = post(body)
    assert response.status_code in {200, 406}
    assert response.status_code == 200 or head() == position


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@for_all(st.binary(max_size=200))
def test_nor_are_any_bytes(post, body):
    position = head()
    assert post(body).status_code == 406
    assert head() == position
