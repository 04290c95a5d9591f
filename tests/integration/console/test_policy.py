"""What a page may run, where there is one and where there is none."""

import pytest


@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", "/admin/modules/nobody", "/admin/rollouts/start"])
def test_a_page_runs_only_what_is_its_own(fleet, viewer, path):
    response = viewer.get(path)
    scripts = response["Content-Security-Policy"].split("script-src ")[1].split(";")[0]
    assert scripts == "'self' 'unsafe-eval'"


def test_the_api_is_no_page(fleet, viewer):
    assert "Content-Security-Policy" not in viewer.get("/v2/nodes")


@pytest.mark.parametrize(("path", "status"), [("/admin/modules/nobody", 404), ("/admin/rollouts/start", 403)])
def test_a_refusal_has_the_icon(fleet, viewer, path, status):
    response = viewer.get(path)
    assert response.status_code == status
    assert 'rel="icon"' in response.content.decode()  # else a browser asks for /favicon.ico, which there is not
