"""Packages in S3: django-storages against moto's server, over HTTP."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from artifacts_app import services
from artifacts_app.models import Build
from artifacts_app.selectors import build_to_fetch
from config.environment import Environment, package_storage
from tests.plugins.packages import ARTIFACTS, as_upload, files_in

KEYS = {"access_key": "a", "secret_key": "b", "region_name": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, settings, tmp_path):
    """An empty bucket, in which this test's packages are kept; temporary files go to the data folder."""
    name = f"bucket-{time.monotonic_ns()}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_bucket(Bucket=name)
    options = {"bucket_name": name, "endpoint_url": endpoint, **KEYS}
    environment = Environment(
        data_dir=str(tmp_path), storage_backend="storages.backends.s3.S3Storage", storage_options=json.dumps(options)
    )
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, data_dir=str(tmp_path))
    settings.STORAGES = {**settings.STORAGES, "default": package_storage(environment)}
    yield lambda: [each["Key"] for each in client.list_objects_v2(Bucket=name).get("Contents", [])]
    client.close()


@pytest.fixture
def build(bucket, admin, pack):
    assert admin.post(ARTIFACTS, as_upload(pack())).status_code == 201
    return build_to_fetch("TestModule", 1, Build.objects.get().content_sha256, ["linux/x86_64"])


def test_it_works(build, bucket, tmp_path):
    assert bucket() == [build.storage_key]
    assert files_in(tmp_path) == []
    assert (tmp_path / ".incoming").is_dir()


def test_a_node_fetches_it_from_the_storage_itself(build, endpoint, pack):
    url = build.url("node1")
    assert url.startswith(endpoint)
    assert httpx.get(url, trust_env=False).content == pack()


def test_a_link_says_when_it_expires(build, settings):
    """S3 refuses it then; moto does not look."""
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, download_seconds=120)
    expires = int(httpx.URL(build.url("node1")).params["Expires"])
    assert 100 < expires - time.time() <= 121


def test_the_same_again_stores_nothing(build, bucket, admin, pack):
    assert admin.post(ARTIFACTS, as_upload(pack())).status_code == 200
    assert bucket() == [build.storage_key]


def test_a_refusal_leaves_nothing(build, bucket, admin, pack, tmp_path):
    assert admin.post(ARTIFACTS, as_upload(pack(description="another"))).status_code == 409
    assert (bucket(), files_in(tmp_path)) == ([build.storage_key], [])


def test_the_sweep(build, bucket, admin, monkeypatch):
    monkeypatch.setattr(services, "database_now", lambda: datetime.now(UTC) + timedelta(hours=25))
    assert services.sweep_storage() == 0
    admin.delete(f"{ARTIFACTS}/TestModule/1")
    monkeypatch.undo()
    assert services.sweep_storage() == 0
    monkeypatch.setattr(services, "database_now", lambda: datetime.now(UTC) + timedelta(hours=25))
    assert services.sweep_storage() == 1
    assert bucket() == []
