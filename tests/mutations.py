"""Changed copies of signed messages: what an attacker could try who has seen valid ones."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from rollout.signing import UntrustedError, envelope_from

Body = dict[str, Any]


def mutations(bodies: Sequence[Body], chance: Random, count: int) -> Iterator[tuple[Body, Any]]:
    """Yield `count` pairs: a valid message, and a changed copy that means something else."""
    while count:
        valid = chance.choice(bodies)
        changed = chance.choice(_WAYS)(copy.deepcopy(valid), chance.choice(bodies), chance)
        if changed not in bodies and not _means_a_valid_one(changed, bodies):
            count -= 1
            yield valid, changed


def _means_a_valid_one(changed: Any, bodies: Sequence[Body]) -> bool:
    """Return True if it differs from a valid message only in fields that nobody reads."""
    try:
        read = envelope_from(changed)
    except UntrustedError:
        return False
    return any(read == envelope_from(each) for each in bodies)


def _other_field(body: Body, other: Body, chance: Random) -> Body:
    """Take some fields from another message."""
    for name in chance.sample(sorted(body), chance.randint(1, 3)):
        body[name] = other[name]
    return body


def _lost_field(body: Body, _: Body, chance: Random) -> Body:
    del body[chance.choice(sorted(body))]
    return body


def _odd_value(body: Body, _: Body, chance: Random) -> Body:
    odd = [None, 0, -1, 2, 10**30, 1.5, True, "", "n2", "x" * 300, "a\0b", [], {}, [body["node"]], {"node": "n2"}]
    body[chance.choice(sorted(body))] = chance.choice(odd)
    return body


def _other_character(body: Body, _: Body, chance: Random) -> Body:
    name = chance.choice([name for name, value in body.items() if isinstance(value, str) and value])
    text = body[name]
    place = chance.randrange(len(text))
    body[name] = text[:place] + chance.choice('abcXYZ019-_="\\ {}n') + text[place + 1 :]
    return body


def _other_payload(body: Body, other: Body, chance: Random) -> Body:
    """Change one value in the message itself."""
    payload = json.loads(body["payload"])
    part, key = chance.choice(list(_places(payload)))
    part[key] = chance.choice(["n2", "", 0, 7, None, True, 10**12, [], {}, "x" * 40])
    body["payload"] = json.dumps(payload)
    if chance.random() < 0.5:
        body["node"] = other["node"]
    return body


def _without_envelope(body: Body, other: Body, chance: Random) -> Any:
    """The message alone, as before messages were signed, in the name of some node."""
    payload = json.loads(body["payload"])
    alone = payload["reports"][0] if "reports" in payload else payload
    alone["node"] = chance.choice([body["node"], other["node"]])
    return alone


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in a JSON value: its container and its key."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, part in list(items):
        yield value, key
        if isinstance(part, dict | list):
            yield from _places(part)


_WAYS = (_other_field, _lost_field, _odd_value, _other_character, _other_payload, _without_envelope)
