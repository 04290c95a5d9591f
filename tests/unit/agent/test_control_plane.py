"""Answers that are not from a control plane: each is an error that the agent handles."""

import socket
import threading
from dataclasses import replace

import pytest

from rollout.agent.control_plane.api import RefusedByControlPlaneError, trust_documents
from rollout.agent.settings import AgentSettings


def http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.fixture
def settings(tmp_path):
    return AgentSettings(
        node="n1", broker_url="", control_url="", server_url="", modules_dir=tmp_path, journal_dir=tmp_path
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\xff\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\nx",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        http(b"<html>"),
        http(b"[" * 200_000),
        http(b"{}"),
        http(b'{"trust": null}'),
        http(b'{"trust": {"a": 1}}'),
    ],
)
def test_another_answer_is_refused(settings, answer):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(RefusedByControlPlaneError):
            trust_documents(replace(settings, control_url=url))
