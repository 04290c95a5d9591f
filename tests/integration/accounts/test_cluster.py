"""GET and PUT /v1/cluster"""

from dataclasses import replace

import pytest
from django.conf import settings

from accounts.errors import ModulesUploadDisabledError
from accounts.events import CLUSTER_STREAM, ClusterSettingsChanged
from accounts.selectors import (
    compatible_redis_version_is_enforced,
    drift_is_corrected,
    modules_upload_allowed,
    require_modules_upload_allowed,
)
from eventstore import load
from tests.plugins.cast import client_of

URL = "/v1/cluster"
UNCHANGED = {"correct_drift": False, "enforce_compatible_redis_version": False}


def test_it_works(alice):
    response = client_of(alice).put(URL, {"allow_modules_upload": False}, format="json")
    answer = {"name": "modfleet", "allow_modules_upload": False, **UNCHANGED}
    assert (response.status_code, response.json()) == (200, answer)
    assert client_of(alice).get(URL).json() == response.json()
    assert not modules_upload_allowed()
    (recorded,) = load(CLUSTER_STREAM)
    assert recorded.event == ClusterSettingsChanged(name="modfleet", allow_modules_upload=False, correct_drift=False)
    assert recorded.actor == "user:alice"


def test_before_the_first_change_the_environment_counts(bob, monkeypatch):
    monkeypatch.setattr(settings, "ENVIRONMENT", replace(settings.ENVIRONMENT, allow_modules_upload=False))
    assert client_of(bob).get(URL).json()["allow_modules_upload"] is False
    with pytest.raises(ModulesUploadDisabledError):
        require_modules_upload_allowed()


def test_one_setting_leaves_the_others(alice):
    client = client_of(alice)
    client.put(URL, {"allow_modules_upload": False}, format="json")
    response = client.put(URL, {"name": "berlin"}, format="json")
    assert response.json() == {"name": "berlin", "allow_modules_upload": False, **UNCHANGED}


def test_compatible_versions_are_enforced_only_when_somebody_says_so(alice):
    assert not compatible_redis_version_is_enforced()
    response = client_of(alice).put(URL, {"enforce_compatible_redis_version": True}, format="json")
    assert (response.status_code, response.json()["enforce_compatible_redis_version"]) == (200, True)
    assert compatible_redis_version_is_enforced()
    assert load(CLUSTER_STREAM)[-1].event.enforce_compatible_redis_version


def test_drift_is_corrected_only_when_somebody_says_so(alice):
    assert not drift_is_corrected()
    response = client_of(alice).put(URL, {"correct_drift": True}, format="json")
    assert (response.status_code, response.json()["correct_drift"]) == (200, True)
    assert drift_is_corrected()
    assert load(CLUSTER_STREAM)[-1].event.correct_drift


def test_twice_is_one_event(alice):
    for _ in range(2):
        client_of(alice).put(URL, {"name": "berlin"}, format="json")
    assert len(load(CLUSTER_STREAM)) == 1


def test_dry_run_changes_nothing(alice):
    response = client_of(alice).put(f"{URL}?dry_run=true", {"name": "berlin"}, format="json")
    assert response.json()["name"] == "berlin"
    assert client_of(alice).get(URL).json()["name"] == "modfleet"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("allow_modules_upload", "true"),
        ("allow_modules_upload", 1),
        ("allow_modules_upload", None),
        ("correct_drift", "yes"),
        ("correct_drift", None),
        ("name", 7),
        ("name", ""),
        ("name", "x" * 256),
        ("email_alerts", True),
    ],
)
def test_a_value_that_cannot_be(alice, field, value):
    response = client_of(alice).put(URL, {field: value}, format="json")
    assert (response.status_code, response.json()["error_code"]) == (400, "invalid_request")
    assert response.json()["description"].startswith(f"{field}: ")


def test_a_dry_run_that_is_neither(alice):
    assert client_of(alice).put(f"{URL}?dry_run=maybe", {}, format="json").status_code == 400


def test_a_viewer_may_only_look(bob):
    assert client_of(bob).get(URL).status_code == 200
    assert client_of(bob).put(URL, {"name": "x"}, format="json").status_code == 403
