"""A server that is no Redis, or a hostile one: whatever it answers, the node sends a heartbeat that can be recorded."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest

from rollout.agent.node.node import Node
from rollout.agent.settings import AgentSettings
from rollout.messages import Heartbeat, ServerState, from_json, to_json


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text.encode()), text.encode())


def array(*items: bytes) -> bytes:
    return b"*%d\r\n" % len(items) + b"".join(items)


INFO = {"redis_version": "7.2.0", "run_id": "r1", "role": "master"}
MODULE = array(bulk("name"), bulk("greet"), bulk("ver"), b":1\r\n")


def info(**fields: str) -> bytes:
    return bulk("".join(f"{name}:{value}\r\n" for name, value in {**INFO, **fields}.items()))


def _serve(listening: socket.socket, answers: Mapping[str, bytes]) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as requests:
                while header := requests.readline():
                    words = [requests.read(int(requests.readline()[1:]) + 2)[:-2] for _ in range(int(header[1:]))]
                    command = b" ".join(words).decode()
                    connection.sendall(
                        next((answers[each] for each in answers if command.startswith(each)), b"+OK\r\n")
                    )


@pytest.fixture
def seen(tmp_path) -> Iterator[Callable[..., ServerState]]:
    """What a heartbeat has of a server with these answers, after a control plane has read it."""
    listening = socket.create_server(("127.0.0.1", 0))

    def observe(answers: Mapping[str, bytes]) -> ServerState:
        good = {"INFO": info(), "MODULE LIST": array(MODULE), "CONFIG GET": array()}
        threading.Thread(target=_serve, args=(listening, {**good, **answers}), daemon=True).start()
        settings: dict[str, Any] = {"modules_dir": tmp_path / "modules", "journal_dir": tmp_path / "journal"}
        url = f"redis://127.0.0.1:{listening.getsockname()[1]}"
        node = Node(AgentSettings(node="n1", broker_url="", control_url="", server_url=url, **settings))
        facts = from_json(Heartbeat, to_json(node.heartbeat(hello=False))).facts
        assert facts is not None
        return facts

    yield observe
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


@pytest.mark.parametrize(
    "answers",
    [
        {"MODULE LIST": b":1\r\n"},
        {"MODULE LIST": b"*-1\r\n"},
        {"MODULE LIST": array(b":1\r\n")},
        {"MODULE LIST": array(array(bulk("ver"), b":1\r\n"))},
        {"MODULE LIST": array(array(bulk("name"), bulk("x"), bulk("ver"), array()))},
        {"MODULE LIST": b"*1\r\n" * 20_000 + b":1\r\n"},
        {"CONFIG GET": b":1\r\n"},
        {"CONFIG GET": array(array(), array())},
        {"INFO": b"$99999999999999999999\r\n"},
    ],
)
def test_an_answer_that_cannot_be_read_is_a_problem_of_the_server(seen, answers):
    facts = seen(answers)
    assert facts.problem == "server_refuses"
    assert facts.message.startswith("The server answers in a way that the agent cannot read: ")


@pytest.mark.parametrize(
    "fields",
    [
        {"redis_version": "7.2.0\0", "run_id": "r\0"},
        {"role": "slave", "master_host": "a\0b", "master_port": "1"},
        {"slave0": "ip=a\0b,port=1,state=\0online,offset=1"},
    ],
)
def test_text_that_no_database_can_store_is_left_out(seen, fields):
    assert (seen({"INFO": info(**fields)})).problem == ""


def test_a_hostile_cluster(seen):
    myself = "a\0b \0:1@2,\0 myself,master c\0d 0 0 1 connected [5->-peer] [99999->-peer]"
    job = [bulk("source_node"), bulk("\0"), bulk("slot_ranges"), bulk("7-99999999999"), bulk("state"), bulk("new\0")]
    answers = {"CLUSTER INFO": bulk("cluster_state:\0"), "CLUSTER NODES": bulk(f"\n\0\n{myself}\n{'x ' * 9}\n")}
    answers |= {"INFO": info(valkey_version="9.1.0", cluster_enabled="1"), "CLUSTER GETSLOT": array(array(*job))}
    facts = seen(answers)
    assert (facts.problem, facts.node_id, facts.master_node_id) == ("", "ab", "cd")
    assert facts.migrations is not None
    assert [each.slots for each in facts.migrations] == ["7-16383", "5 99999"]
