"""Where packages are kept: spools, the sweep, and links by which nodes fetch them."""

import io
import os
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace

import pytest
from django.core import signing

from artifacts_app.models import Build
from artifacts_app.selectors import build_to_fetch
from artifacts_app.services import ORPHAN_GRACE, sweep_storage
from artifacts_app.storage import Spool, delete_package, open_package
from config.environment import Environment, SettingsError, package_storage, read_environment
from tests.plugins.packages import ARTIFACTS, as_upload, files_in
from tests.recorded_fleet import know

DAY = ORPHAN_GRACE.total_seconds()


@pytest.fixture
def build(admin, pack):
    admin.post(ARTIFACTS, as_upload(pack()))
    return build_to_fetch("TestModule", 1, Build.objects.get().content_sha256, ["linux/x86_64"])


@contextmanager
def spooled(content):
    with Spool() as spool:
        spool.write(content)
        yield spool


def grow_old(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_spool_is_gone_when_it_is_closed(stored):
    with spooled(b"abc") as spool:
        assert (spool.size, spool.sha256[:8]) == (3, "ba7816bf")
        assert len(files_in(stored)) == 1
    assert files_in(stored) == []


def test_it_is_gone_after_an_error_too(stored):
    with pytest.raises(ZeroDivisionError), spooled(b"abc"):
        raise ZeroDivisionError
    assert files_in(stored) == []


def test_what_was_stored_stays(stored):
    with spooled(b"abc") as spool:
        key = spool.store()
    assert files_in(stored) == [key]
    with open_package(key) as file:
        assert file.read() == b"abc"


def test_deleting_twice_is_no_error(stored):
    with spooled(b"abc") as spool:
        key = spool.store()
    delete_package(key)
    delete_package(key)
    assert files_in(stored) == []


def test_the_sweep_removes_what_no_build_names_after_a_day(db, stored):
    with spooled(b"abc") as spool:
        key = spool.store()
    grow_old(stored / key, DAY - 60)
    assert sweep_storage() == 0
    grow_old(stored / key, DAY + 60)
    assert sweep_storage() == 1
    assert files_in(stored) == []


def test_the_sweep_never_removes_a_live_build(build, stored):
    grow_old(stored / build.storage_key, 100 * DAY)
    assert sweep_storage() == 0
    assert files_in(stored) == [build.storage_key]


def test_the_sweep_removes_a_deleted_build(admin, build, stored):
    admin.delete(f"{ARTIFACTS}/TestModule/1")
    grow_old(stored / build.storage_key, DAY + 60)
    assert sweep_storage() == 1


def test_the_sweep_removes_the_spools_of_killed_processes(db, stored):
    with spooled(b"old") as old, spooled(b"new") as new:
        grow_old(old.path, DAY + 60)
        sweep_storage()
        assert files_in(stored) == [os.path.relpath(new.path, stored)]


def test_a_sweep_before_anything_was_stored(db, stored):
    assert sweep_storage() == 0


# --- Links ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def link(build, settings):
    """Path of the build's link for node1, which joined before messages were signed."""
    know("node1")
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, public_url="https://modfleet.example:9443/")
    url = build.url("node1")
    assert url.startswith("https://modfleet.example:9443/v2/downloads/")
    return url.removeprefix("https://modfleet.example:9443")


def refused(response):
    assert (response.status_code, response.json()["error_code"]) == (403, "invalid_link")
    assert response["Content-Type"] == "application/json"


def test_a_link_needs_no_credentials(anyone, link, pack):
    response = anyone.get(link)
    content = b"".join(response.streaming_content)
    assert (response.status_code, response["Content-Type"], content) == (200, "application/zip", pack())
    assert response["Content-Length"] == str(len(content))


@pytest.mark.parametrize("place", [20, 60, -1])
def test_a_tampered_link(anyone, link, place):
    other = "A" if link[place] != "A" else "B"
    refused(anyone.get(link[:place] + other + link[place:][1:]))


def test_a_link_of_another_kind(anyone, link):
    refused(anyone.get("/v2/downloads/" + signing.dumps(["a", "b", "c"])))
    refused(anyone.get("/v2/downloads/x"))


@pytest.mark.parametrize("node", ["stranger", ""])
def test_a_link_for_a_node_that_does_not_exist(anyone, build, link, node):
    signed = build.url(node).rpartition("/")[2]
    refused(anyone.get(f"/v2/downloads/{signed}"))


def test_an_expired_link(anyone, link, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, download_seconds=-1)
    refused(anyone.get(link))


def test_a_link_to_what_is_gone(anyone, build, link):
    delete_package(build.storage_key)
    response = anyone.get(link)
    assert (response.status_code, response.json()["error_code"]) == (410, "package_gone")


def test_bytes_that_were_lost_are_stored_by_the_same_upload(admin, anyone, build, link, pack):
    delete_package(build.storage_key)
    assert admin.post(ARTIFACTS, as_upload(pack())).status_code == 200
    assert b"".join(anyone.get(link).streaming_content) == pack()


def test_other_bytes_do_not_take_the_place_of_those_that_were_lost(admin, build, pack, stored):
    delete_package(build.storage_key)
    response = admin.post(ARTIFACTS, as_upload(zipped_anew(pack())))
    assert (response.status_code, response.json()["error_code"]) == (409, "artifact_exists")
    assert "has lost the package" in response.json()["description"]
    assert files_in(stored) == []


def zipped_anew(package):
    """The same content in other bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package)) as old, zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return content.getvalue()


def test_a_link_is_made_anew_for_each_node(build):
    assert build.url("node1") != build.url("node2")


def test_a_link_is_for_reading(anyone, link):
    assert anyone.post(link).status_code == 405
    response = anyone.head(link)
    response.close()
    assert response.status_code == 200


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["{", "[]", "1", '"text"', "location=/tmp"])
def test_options_that_are_no_json_object(options):
    with pytest.raises(SettingsError, match=r"^MODFLEET_STORAGE_OPTIONS: must be a JSON object"):
        read_environment({"MODFLEET_STORAGE_OPTIONS": options})


def test_the_default_is_in_the_data_directory():
    assert package_storage(Environment(data_dir="/data"))["OPTIONS"] == {"location": "/data/artifacts"}


def test_options_go_to_the_storage():
    storage = package_storage(Environment(storage_backend="a.B", storage_options='{"bucket_name": "b"}'))
    assert storage == {"BACKEND": "a.B", "OPTIONS": {"bucket_name": "b"}}
