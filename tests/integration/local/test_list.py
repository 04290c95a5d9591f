"""GET /v2/local/modules/user-defined/artifacts, and which node is the local one."""

import pytest

from rollout.services.nodes import decommission_node, revoke_node
from tests.plugins.packages import ARTIFACTS, LOCAL, as_upload
from tests.plugins.played_nodes import installed, join


def names(response):
    assert response.status_code == 200
    return [each["module_name"] for each in response.json()]


def test_it_works(admin, named, pack):
    admin.post(ARTIFACTS, as_upload(pack(dependencies={"dep_2": {}, "dep_1": {}})))
    join("node1", installed("TestModule", 1))
    named("node1")
    response = admin.get(LOCAL)
    assert response.json() == [{"module_name": "TestModule", "version": 1, "dependencies": ["dep_1", "dep_2"]}]
    assert response["Content-Length"] == str(len(response.content))


def test_a_node_without_any(admin, named):
    join("node1")
    named("node1")
    response = admin.get(LOCAL)
    assert (response.status_code, response.content) == (200, b"[]")


def test_what_has_no_artifact_any_more_is_listed_too(admin, named):
    join("node1", installed("gone", 3))
    named("node1")
    assert admin.get(LOCAL).json() == [{"module_name": "gone", "version": 3, "dependencies": []}]


@pytest.mark.parametrize("host", ["two.localhost", "two.localhost:9443", "TWO.localhost", "Two.Localhost:80"])
def test_the_host_names_the_node(admin, named, host):
    join("node1", installed("one", 1), api_hosts=("one.localhost",))
    join("node2", installed("two", 1), api_hosts=("other", "Two.localhost"))
    named("node1")
    assert names(admin.get(LOCAL, headers={"Host": host})) == ["two"]


def test_any_other_host_means_the_named_node(admin, named):
    join("node1", installed("one", 1), api_hosts=("one.localhost",))
    join("node2", installed("two", 1), api_hosts=("two.localhost",))
    named("node2")
    assert names(admin.get(LOCAL, headers={"Host": "127.0.0.1:8000"})) == ["two"]


@pytest.mark.parametrize(("method", "path"), [("get", LOCAL), ("post", LOCAL), ("delete", f"{LOCAL}/greet/1")])
def test_a_node_that_takes_the_host_name_of_another_gets_nothing(admin, named, method, path):
    """Otherwise the client would believe that it has changed the node that it named."""
    join("another", api_hosts=("TWO.localhost", "two.localhost"))
    join("node2", installed("two", 1), api_hosts=("two.localhost",))
    named("node2")
    response = getattr(admin, method)(path, headers={"Host": "two.localhost"})
    assert (response.status_code, response.json()["error_code"]) == (503, "no_local_node")
    assert "another, node2" in response.json()["description"]
    revoke_node("another")
    assert names(admin.get(LOCAL, headers={"Host": "two.localhost"})) == ["two"]


def test_no_node_takes_the_host_name_of_the_control_plane(admin, named):
    join("another", api_hosts=("127.0.0.1",))
    join("node2", installed("two", 1))
    named("node2")
    assert names(admin.get(LOCAL, headers={"Host": "127.0.0.1:8000"})) == ["two"]


@pytest.mark.parametrize("name", ["", "unknown", "gone"])
@pytest.mark.parametrize(("method", "path"), [("get", LOCAL), ("post", LOCAL), ("delete", f"{LOCAL}/greet/1")])
def test_without_a_local_node(admin, named, name, method, path):
    join("gone")
    decommission_node("gone")
    named(name)
    response = getattr(admin, method)(path)
    assert (response.status_code, response.json()["error_code"]) == (503, "no_local_node")


def test_a_host_that_is_not_ours(admin):
    response = admin.get(LOCAL, headers={"Host": "evil.example"})
    assert (response.status_code, response.json()["error_code"]) == (400, "invalid_request")


@pytest.mark.parametrize("rows", [1, 8])
def test_the_queries_do_not_depend_on_the_rows(admin, named, rows, django_assert_num_queries):
    join("node1", *(installed("greet", each) for each in range(rows)))
    named("node1")
    admin.get(LOCAL)
    with django_assert_num_queries(4):  # the user, the node, what it has, what that depends on
        assert len(admin.get(LOCAL).json()) == rows


def test_paths_and_methods(admin):
    assert admin.get(f"{LOCAL}/").status_code == 404
    assert admin.put(LOCAL).status_code == 405
    assert admin.get(f"{LOCAL}/greet/1").status_code == 405
    assert admin.options(LOCAL)["Allow"] == "GET, POST, HEAD, OPTIONS"
