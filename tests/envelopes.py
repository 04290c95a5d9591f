"""Items of a queue that no consumer can read, and mutations of one that it can."""

import base64
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

#: What a field of an envelope is replaced by.
JUNK: list[Any] = [
    None,
    True,
    -1,
    2**80,
    1e308,
    "",
    "x",
    "\x00",
    "é\U0001f600",
    "application/x-python-serialize",
    "zlib",
    "../../etc",
    [],
    [[]],
    {},
    {"__type__": "datetime", "__value__": "x"},
    {"__type__": "nothing", "__value__": []},
    {"task": {}},
    "A" * 10_000,
]


REPORT = b'{"rollout": "r", "node": "n0", "module_name": "m", "generation": 1, "attempt": 1, "phase": "succeeded"}'


def envelope(body: bytes = b"{}", **changes: Any) -> bytes:
    """As kombu writes it; a change of None leaves the field out."""
    made: dict[str, Any] = {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "control"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "9c1f",
        },
    }
    made |= {name.replace("_", "-"): value for name, value in changes.items()}
    return json.dumps({name: value for name, value in made.items() if value is not None}).encode()


def task(name: Any = "modfleet.execute", body: bytes = b"[[], {}, {}]", **headers: Any) -> bytes:
    """As Celery writes a task."""
    return envelope(body, headers={"lang": "py", "task": name, "id": "i1", "retries": 0, "eta": None} | headers)


def _properties(**changes: Any) -> dict[str, Any]:
    properties: dict[str, Any] = json.loads(envelope())["properties"]
    return properties | changes


#: Each of them is dropped, whatever the queue.
UNREADABLE = {
    "a word": b"x",
    "nothing": b"",
    "a number": b"7",
    "null": b"null",
    "a list": b"[]",
    "no fields": b"{}",
    "half of one": envelope()[:60],
    "not UTF-8": b"\xff\xfe" + envelope(),
    "a lone surrogate": b'{"body": "\\ud800"}',
    "nested lists": b"[" * 100_000,
    "nested headers": b'{"headers":' + b'{"a":' * 100_000,
    "not finite": b'{"properties": NaN}',
    "huge": envelope(b"x" * 5_000_000),
    "no body": envelope(body=b"").replace(b'"body": ""', b'"body": null'),
    "a body that is a number": envelope().replace(b'"body": "e30="', b'"body": 7'),
    "a body that is no base64": envelope().replace(b'"e30="', b'"e30"'),
    "a body beyond ASCII": envelope().replace(b'"e30="', '"é"'.encode()),
    "no properties": envelope(properties=None),
    "properties that are a list": envelope(properties=[]),
    "no delivery tag": envelope(properties={"body_encoding": "base64"}),
    "a delivery tag that is a list": envelope(properties=_properties(delivery_tag=[])),
    "an endless delivery tag": envelope(properties=_properties(delivery_tag="x" * 10_000)),
    "an unknown body encoding": envelope(properties=_properties(body_encoding="rot13")),
    "an unknown content type": envelope(content_type="application/x-python-serialize"),
    "no content type": envelope(content_type=None),
    "an unknown character set": envelope(content_encoding="bz2_codec"),
    "headers that are a list": envelope(headers=[]),
    "a zlib bomb": envelope(zlib.compress(bytes(20_000_000)), headers={"compression": "application/x-gzip"}),
    "an unknown compression": envelope(headers={"compression": "x"}),
    "a typed value": envelope(headers={"a": {"__type__": "datetime", "__value__": "x"}}),
    "an escaped typed value": envelope(headers={"a": {"__type__": "x", "__value__": 1}}).replace(
        b"__type__", b"\\u005f_type__"
    ),
}

#: Readable as an envelope, and nothing that a consumer could use.
USELESS = {
    "a body that is no JSON": envelope(b"{"),
    "an empty body": envelope(b""),
    "a body that is not UTF-8": envelope(b"\xff"),
    "a nested body": envelope(b"[" * 100_000),
    "a typed body": envelope(b'{"__type__": "datetime", "__value__": "x"}'),
    "null as body": envelope(b"null"),
    "a lone surrogate as body": envelope(b'"\\ud800"'),
    "a lone surrogate as phase": envelope(REPORT.replace(b"succeeded", b"\\ud800")),
    "a lone surrogate as an unknown field": envelope(REPORT.replace(b"}", b', "\\ud800": 1}')),
    "a lone surrogate as message": envelope(REPORT.replace(b"}", b', "message": "\\ud800"}')),
    "a name that is a path": envelope(REPORT.replace(b"n0", b"..")),
    "a heartbeat of a lone surrogate": envelope(b'{"node": "\\ud800", "hello": false}'),
    "a foreign address": envelope(properties=_properties(delivery_info={"exchange": "x", "routing_key": "node.other"})),
    "no address": envelope(properties=_properties(delivery_info=None)),
    "a priority that is none": envelope(properties=_properties(priority={})),
    "an unknown task": task("os.system"),
    "a task whose name is a list": task([]),
    "a task whose name is null": task(None),
    "a task without an id": envelope(b"[[], {}, {}]", headers={"task": "modfleet.execute"}),
    "a task whose body is an object": task(body=b"{}"),
    "a task whose body is short": task(body=b"[]"),
    "a task whose body is no JSON": task(body=b"["),
    "a task whose arguments are a word": task(body=b'["x", "y", "z"]'),
    "a task with unknown arguments": task(body=b'[[1, 2, 3], {"x": 1}, {}]'),
    "a task with a callback": task(body=b'[[], {}, {"callbacks": [1], "chain": "x", "chord": 7, "errbacks": {}}]'),
    "a task that is too early": task(eta="never"),
    "a task that is too late": task(expires="never"),
    "a task with a wrong limit": task(timelimit="x"),
    "a task with wrong retries": task(retries="x"),
    "a task of the old protocol": envelope(b'{"task": [], "id": "i", "args": [], "kwargs": {}}'),
    "a task of the old protocol without an id": envelope(b'{"task": "os.system"}'),
    "a task of the old protocol with a wrong date": envelope(b'{"task": "modfleet.execute", "id": "i", "eta": 7}'),
}


def mutations(count: int, *, seed: int, of: bytes | None = None) -> Iterator[bytes]:
    """`count` items that were an envelope or a task before a field, or some bytes, were replaced."""
    chance = random.Random(seed)
    for _ in range(count):
        item = of or chance.choice([envelope(b'{"rollout": "r"}'), task()])
        yield _other_bytes(item, chance) if chance.random() < 0.5 else _other_field(item, chance)


def _other_bytes(item: bytes, chance: random.Random) -> bytes:
    changed = bytearray(item)
    for _ in range(chance.choice([1, 1, 3, 20])):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[: chance.choice([len(changed), len(changed), chance.randrange(len(changed))])])


def _other_field(item: bytes, chance: random.Random) -> bytes:
    document = json.loads(item)
    place = document
    while True:
        name = chance.choice(sorted(place)) if place else "a"
        if isinstance(place.get(name), dict) and place[name] and chance.random() < 0.6:
            place = place[name]
            continue
        if chance.random() < 0.3:
            place.pop(name, None)
        else:
            place[name] = chance.choice(JUNK)
        return json.dumps(document).encode()
