"""A package from a browser: the checks and the answers of the API, for a person."""

import io
import json
import zipfile
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from accounts.models import ClusterSettings
from artifacts_app.events import artifact_stream
from artifacts_app.models import Build
from eventstore import head, load
from modules_app.models import Module
from tests.integration.admin.conftest import described, messages, text
from tests.plugins.cast import PASSWORD

JSON: dict[str, Any] = {"HTTP_ACCEPT": "application/json"}


@pytest.fixture
def package(fleet, shared_object):
    def made(name="bloom", version=1, module_json=None):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("greet.so", shared_object)
            archive.writestr(
                "module.json", json.dumps(described(name, version)) if module_json is None else module_json
            )
        return SimpleUploadedFile(f"{name}.zip", out.getvalue(), content_type="application/zip")

    return made


def test_it_works(package, admin):
    response = admin.post("/admin/upload", {"module": package()}, **JSON)
    assert response.status_code == 201
    assert response.json()["start"] == "/admin/rollouts/start?module=bloom&version=1"
    assert [each.actor for each in load(artifact_stream("bloom", 1))] == ["user:alice"]
    assert Module.objects.filter(module_name="bloom").exists()


def test_the_same_build_again_is_no_change(package, admin):
    admin.post("/admin/upload", {"module": package()}, **JSON)
    before = head()
    assert admin.post("/admin/upload", {"module": package()}, **JSON).status_code == 200
    assert head() == before


def test_without_a_script_the_form_leads_to_the_module(package, admin):
    response = admin.post("/admin/upload", {"module": package()}, follow=True)
    assert response.redirect_chain == [("/admin/modules/bloom", 302)]
    assert "bloom 1 for" in messages(response)[0]
    assert "start?module=bloom" in messages(response)[0]


@pytest.mark.parametrize(
    ("content", "code"), [(b"no zip", "invalid_artifact"), (b"", "no_module"), (None, "no_module")]
)
def test_what_is_wrong_stands_beside_the_file(fleet, admin, content, code):
    def form():
        return {} if content is None else {"module": SimpleUploadedFile("greet.zip", content)}

    response = admin.post("/admin/upload", form(), **JSON)
    assert (response.status_code, response.json()["error_code"]) == (400, code)
    page = admin.post("/admin/upload", form())
    assert page.status_code == 400
    assert f'id="error" role="alert"><code>{code}</code>' in text(page)


def test_metadata_that_is_wrong_is_explained(package, admin):
    response = admin.post("/admin/upload", {"module": package(module_json='{"module_name": "x"}')}, **JSON)
    assert response.status_code == 406
    assert "version" in response.json()["description"]


def test_a_viewer_cannot_upload(package, viewer):
    assert viewer.get("/admin/upload").status_code == 403
    assert viewer.post("/admin/upload", {"module": package()}).status_code == 403
    assert not Build.objects.filter(module_name="bloom").exists()


def test_a_form_from_elsewhere_is_refused(package, alice):
    browser = Client(enforce_csrf_checks=True)
    browser.login(username="alice", password=PASSWORD)
    before = head()
    assert browser.post("/admin/upload", {"module": package()}).status_code == 403
    assert head() == before


def test_the_token_in_a_header_will_do(package, alice):
    browser = Client(enforce_csrf_checks=True)
    browser.login(username="alice", password=PASSWORD)
    token = text(browser.get("/admin/upload")).split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
    response = browser.post("/admin/upload", {"module": package()}, HTTP_X_CSRFTOKEN=token, **JSON)
    assert response.status_code == 201


def test_a_package_over_the_limit_is_refused(package, admin, settings):
    from dataclasses import replace

    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, max_upload_bytes=100)
    response = admin.post("/admin/upload", {"module": package()}, **JSON)
    assert (response.status_code, response.json()["error_code"]) == (413, "artifact_too_large")


def test_uploads_may_be_switched_off(package, admin):
    ClusterSettings.objects.create(name="modfleet", allow_modules_upload=False, correct_drift=False)
    response = admin.post("/admin/upload", {"module": package()}, **JSON)
    assert response.status_code >= 400
    assert not Build.objects.filter(module_name="bloom").exists()


def test_no_temporary_file_stays(package, admin, settings):
    from artifacts_app.storage import _incoming

    admin.post("/admin/upload", {"module": package()}, **JSON)
    admin.post("/admin/upload", {"module": SimpleUploadedFile("greet.zip", b"no zip")}, **JSON)
    assert list(_incoming().iterdir()) == []
