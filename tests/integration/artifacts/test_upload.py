"""POST /v2/modules/user-defined/artifacts: once for the whole cluster."""

import hashlib
import io
import stat
import zipfile
from dataclasses import replace

import pytest
from django.db import OperationalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import services as accounts
from artifacts_app import services
from artifacts_app.models import Build
from artifacts_app.services import add_build, artifact_deletion
from artifacts_app.storage import Spool, open_package
from eventstore import append, head, load, projections
from modules_app.services import module_uid
from tests.plugins.databases import at_once
from tests.plugins.packages import AARCH64, ARTIFACTS, as_upload, files_in, module_object

MODULES = "/v2/modules/user-defined"


@pytest.fixture
def post(admin, pack):
    def posted(package=None, **headers):
        return admin.post(ARTIFACTS, as_upload(package or pack()), headers=headers)

    return posted


def refused(response, status, code):
    assert (response.status_code, response.json()["error_code"]) == (status, code)
    assert response["Content-Length"] == str(len(response.content))
    return response.json()["description"]


def test_it_works(post, pack, stored):
    package = pack(dependencies={"dep_1": {}})
    response = post(package)
    build = Build.objects.get()
    assert response.status_code == 201
    assert response.json().keys() == {"module_name", "version", "builds", "dependencies"}
    assert response.json()["dependencies"] == ["dep_1"]
    (shown,) = response.json()["builds"]
    assert (shown["platform"], shown["size"], shown["uploaded_by"]) == ("linux/x86_64", len(package), "alice")
    assert shown["uploaded_at"].endswith("Z")
    assert files_in(stored) == [build.storage_key]
    with open_package(build.storage_key) as file:
        assert file.read() == package


def test_a_packed_dependency_is_listed_though_module_json_leaves_it_out(post, pack):
    package = pack(dependencies={"dep_1": {}}, members={"deps/dep_2.tgz": b"x"})
    assert post(package).json()["dependencies"] == ["dep_1", "dep_2"]


def test_a_version_as_the_packer_writes_it(post, pack):
    assert post(pack(version=10203.0)).json()["version"] == 10203


def test_the_same_again_is_no_event(post, stored):
    first = post()
    position, files = head(), files_in(stored)
    again = post()
    assert (again.status_code, again.json()) == (200, first.json())
    assert (head(), files_in(stored)) == (position, files)


def test_the_same_content_zipped_anew_is_no_event(post, pack):
    post()
    position = head()
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(pack())) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in reversed(old.namelist()):
            new.writestr(zipfile.ZipInfo(name, (2001, 2, 3, 4, 5, 6)), old.read(name))
    assert post(out.getvalue()).status_code == 200
    assert head() == position


def test_each_platform_has_a_build(post, pack):
    post()
    response = post(pack(machine=AARCH64))
    assert response.status_code == 201
    assert [each["platform"] for each in response.json()["builds"]] == ["linux/aarch64", "linux/x86_64"]


def test_another_build_of_the_platform_is_refused(post, pack, stored):
    post()
    position, files = head(), files_in(stored)
    refused(post(pack(description="another")), 409, "artifact_exists")
    assert (head(), files_in(stored)) == (position, files)


def test_a_package_without_a_declared_file_leaves_its_place_to_the_right_one(post, pack, stored):
    declared = {"dependencies": {"jdk": {"sha256": hashlib.sha256(b"jdk").hexdigest()}}}
    position = head()
    refused(post(pack(**declared)), 400, "invalid_artifact")
    assert (head(), files_in(stored)) == (position, [])
    assert post(pack(**declared, members={"deps/jdk.tgz": b"jdk"})).status_code == 201


@pytest.mark.parametrize("first", ["object", "package"])
def test_object_and_package_come_in_either_order(admin, post, first):
    calls = {"object": lambda: admin.post(MODULES, module_object(), format="json"), "package": post}
    for name in sorted(calls, key=lambda each: each != first):
        assert calls[name]().status_code in {200, 201}


@pytest.mark.parametrize("first", ["object", "package"])
def test_the_later_one_must_not_contradict(admin, post, pack, stored, first):
    body = module_object(semantic_version="9.9.9", capabilities=[])
    calls = {"object": lambda: admin.post(MODULES, body, format="json"), "package": lambda: post(pack())}
    earlier, later = sorted(calls, key=lambda each: each != first)
    calls[earlier]()
    position, files = head(), files_in(stored)
    assert "differ in: capabilities, semantic_version." in refused(calls[later](), 406, "metadata_mismatch")
    assert (head(), files_in(stored)) == (position, files)


def test_the_object_is_not_made_of_it(admin, post):
    post()
    assert admin.get(f"{MODULES}/{module_uid('TestModule', 1)}").status_code == 404


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"machine": 0x28}, 400, "invalid_artifact"),
        ({"members": {"evil.sh": b"x"}}, 400, "invalid_artifact"),
        ({"members": {"../deps/a": b"x"}}, 400, "invalid_artifact"),
        ({"members": {"second.so": b"x"}}, 400, "invalid_artifact"),
        ({"sha256": "0" * 64}, 400, "invalid_artifact"),
        ({"module_name": None}, 406, "invalid_module"),
        ({"version": 1.5}, 406, "invalid_module"),
        ({"architecture": "s390x"}, 406, "invalid_module"),
    ],
)
def test_a_bad_package_leaves_nothing_behind(post, pack, stored, changes, status, code):
    position = head()
    refused(post(pack(**changes)), status, code)
    assert (head(), files_in(stored)) == (position, [])


def test_too_large_by_what_is_declared(post, settings, stored):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, max_upload_bytes=1000)
    assert "1000 bytes" in refused(post(b"x" * 200_000), 413, "artifact_too_large")
    assert files_in(stored) == []


def test_too_large_by_what_comes(post, settings, stored):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, max_upload_bytes=1000)
    refused(post(b"x" * 1001), 413, "artifact_too_large")
    assert files_in(stored) == []


def test_just_small_enough(post, pack, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, max_upload_bytes=len(pack()))
    assert post().status_code == 201


def test_a_package_that_unpacks_to_too_much(post, settings, stored):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, max_unpacked_bytes=1000)
    refused(post(), 400, "invalid_artifact")
    assert files_in(stored) == []


def test_the_gate_closed(post, stored):
    accounts.update_cluster_settings(allow_modules_upload=False)
    refused(post(), 403, "modules_upload_disabled")
    assert files_in(stored) == []


def test_only_the_first_file_counts(admin, pack):
    response = admin.post(ARTIFACTS, {"before": "x", **as_upload(pack()), **as_upload(b"x", field="other")})
    assert response.status_code == 201


@pytest.mark.parametrize("length", ["x", "-1", "1.5", ""])
def test_a_length_that_is_none(admin, length):
    response = admin.generic("POST", ARTIFACTS, b"x", "multipart/form-data; boundary=x", CONTENT_LENGTH=length)
    refused(response, 400, "no_module")


def test_an_idempotency_key_keeps_the_answer(admin, post):
    first = post(**{"Idempotency-Key": "k1"})
    admin.delete(f"{ARTIFACTS}/TestModule/1")
    again = post(**{"Idempotency-Key": "k1"})
    assert (again.status_code, again.content, again["Idempotency-Replayed"]) == (201, first.content, "true")
    assert not Build.objects.exists()


def test_an_idempotency_key_of_another_package_is_refused(post, pack, stored):
    post(**{"Idempotency-Key": "k1"})
    files = files_in(stored)
    refused(post(pack(version=2), **{"Idempotency-Key": "k1"}), 409, "idempotency_key_reused")
    assert files_in(stored) == files


def test_a_refusal_is_not_kept(post, pack):
    refused(post(pack(version="x"), **{"Idempotency-Key": "k1"}), 406, "invalid_module")
    assert post(**{"Idempotency-Key": "k1"}).status_code == 201


def test_what_is_stored_can_be_read_by_its_owner_alone_and_is_no_program(post, stored):
    post()
    (name,) = files_in(stored)
    assert stat.S_IMODE((stored / name).stat().st_mode) == 0o600


def test_it_is_renamed_not_copied(pack, stored, db):
    with Spool() as spool:
        spool.write(pack())
        inode = spool.file.fileno() and (stored / ".incoming" / spool.path.rpartition("/")[2]).stat().st_ino
        add_build(spool)
    assert (stored / files_in(stored)[0]).stat().st_ino == inode


def test_uploads_that_are_switched_off_while_the_body_comes_in_are_refused(post, stored, monkeypatch):
    real = services.inspect

    def inspect(spool):
        accounts.update_cluster_settings(allow_modules_upload=False)
        return real(spool)

    monkeypatch.setattr(services, "inspect", inspect)
    refused(post(), 403, "modules_upload_disabled")
    assert (Build.objects.count(), files_in(stored)) == (0, [])


def test_no_build_is_recorded_without_bytes(post, pack, stored, monkeypatch):
    """The same build was there when the package was looked at, so that its bytes were not stored, and is deleted then."""
    post()
    real = services._record

    def record(*args, **more):
        monkeypatch.setattr(services, "_record", real)
        append(artifact_deletion("TestModule", 1))
        return real(*args, **more)

    monkeypatch.setattr(services, "_record", record)
    refused(post(), 409, "conflict")
    assert Build.objects.count() == 0
    assert post().status_code == 201
    with open_package(Build.objects.get().storage_key) as file:
        assert file.read() == pack()


def test_the_bytes_stay_when_nobody_knows_whether_the_build_was_recorded(post, pack, monkeypatch):
    real = services._record

    def record(*args, **more):
        real(*args, **more)
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(services, "_record", record)
    assert post().status_code == 503
    with open_package(Build.objects.get().storage_key) as file:
        assert file.read() == pack()


def test_two_at_the_same_moment_are_one(committed_admin, pack, stored):
    def upload():
        return committed_admin.post(ARTIFACTS, as_upload(pack()))

    answers = at_once(upload, upload, upload)
    assert sorted(each.status_code for each in answers) == [200, 200, 201]
    assert [each.type for each in load("artifact:TestModule:1")] == ["artifact.uploaded.v1"]
    assert files_in(stored) == [Build.objects.get().storage_key]


def test_two_with_one_key_are_one(committed_admin, pack, stored):
    def upload():
        return committed_admin.post(ARTIFACTS, as_upload(pack()), headers={"Idempotency-Key": "k1"})

    answers = at_once(upload, upload)
    assert {each.status_code for each in answers} == {201}
    assert answers[0].content == answers[1].content
    assert len(files_in(stored)) == 1


def test_rebuilt_equals_live(admin, post, pack):
    post()
    post(pack(machine=AARCH64))
    post(pack(version=2))
    admin.delete(f"{ARTIFACTS}/TestModule/1")
    post(pack(description="anew"))
    for projection in projections.registered():
        assert projections.check(projection) == []


@pytest.fixture
def body(pack):
    """A sound body, and its content type."""
    head = b'--b0undary\r\nContent-Disposition: form-data; name="module"; filename="m.zip"\r\n\r\n'
    return head + pack() + b"\r\n--b0undary--\r\n"


MUTATIONS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from("xdi"), st.binary(max_size=4)), min_size=1, max_size=4)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=MUTATIONS, at_the_head=st.booleans())
def test_no_body_is_an_error_of_ours(admin, body, stored, mutations, at_the_head):
    position, files = head(), files_in(stored)
    mutated = bytearray(body)
    for where, how, new in mutations:
        index = int(where * (120 if at_the_head else len(mutated)))
        mutated[index : index + (0 if how == "i" else len(new) or 1)] = b"" if how == "d" else new
    response = admin.generic("POST", ARTIFACTS, bytes(mutated), "multipart/form-data; boundary=b0undary")
    assert response.status_code in {200, 201, 400, 406, 409, 413}
    assert response.status_code < 300 or (head(), files_in(stored)) == (position, files)
