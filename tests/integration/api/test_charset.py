"""The charset that a Content-Type names, up to the WSGI application: Django reads it before any middleware."""

import io
import json

import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections

from tests.plugins.cast import basic

PART = b'--b\r\nContent-Disposition: form-data; name="module"; filename="m.zip"\r\n\r\nx\r\n--b--\r\n'


@pytest.fixture
def post(alice):
    """Closing the connection at the end of a request would end the test's transaction."""
    from config.wsgi import application

    def posted(path, content_type, body, query):
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": content_type,
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_HOST": "localhost",
            "HTTP_AUTHORIZATION": basic("alice"),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "wsgi.input": io.BytesIO(body),
            "wsgi.url_scheme": "http",
        }
        answered = []

        def start(status, _headers, _error=None, /):
            answered.append(status)
            return answered.append  # a way to write that nobody takes

        response = application(environ, start)
        return int(answered[0].split()[0]), json.loads(b"".join(response))["error_code"]

    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield posted
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.mark.parametrize("charset", ["bz2_codec", "base64", "rot13", "utf-16", "nonsense", ""])
@pytest.mark.parametrize("query", ["", "a=%ff"])
def test_an_upload(post, storage, charset, query):
    content_type = f"multipart/form-data; boundary=b; charset={charset}"
    assert post("/v2/modules/user-defined/artifacts", content_type, PART, query) == (400, "invalid_artifact")


@pytest.mark.parametrize("charset", ["bz2_codec", "utf-16"])
def test_json(post, charset):
    content_type = f"application/json; charset={charset}"
    assert post("/v2/modules/user-defined", content_type, b"{}", "a=b") == (415, "unsupported_media_type")
