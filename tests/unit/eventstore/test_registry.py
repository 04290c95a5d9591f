"""Events and their stable names, without a database."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as some

from eventstore import UnknownEventTypeError, event, registered_types, stored_names_of, upcaster
from eventstore.registry import decode, encode, name_of
from tests.ledger import Deposited, Opened

pytestmark = pytest.mark.usefixtures("ledger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    to: str
    weights: dict[str, float]


def new_class():
    class Returned:
        to: str

    return Returned


def test_an_event_is_stored_under_its_stable_name():
    made = event("ledger.returned.v1")(new_class())

    assert made(to="here") == made(to="here")
    assert name_of(made) == "ledger.returned.v1"
    assert registered_types()["ledger.returned.v1"] is made
    assert list(registered_types()) == sorted(registered_types())


@pytest.mark.parametrize("taken", ["ledger.opened.v1", "ledger.deposited.v1"])
def test_a_name_is_not_registered_twice(taken):
    with pytest.raises(ValueError, match="registered twice"):
        event(taken)(new_class())
    with pytest.raises(ValueError, match="registered twice"):
        upcaster(taken, to="ledger.opened.v1")(dict)


def test_an_unknown_type_says_its_name():
    with pytest.raises(UnknownEventTypeError, match=r"ledger\.never\.v1"):
        decode("ledger.never.v1", "{}")


def test_an_upcaster_that_leads_nowhere_is_an_unknown_type():
    upcaster("ledger.lost.v1", to="ledger.lost.v2")(dict)

    with pytest.raises(UnknownEventTypeError, match=r"ledger\.lost\.v2"):
        decode("ledger.lost.v1", "{}")


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("ledger.deposited.v1", '{"amount":3}'),
        ("ledger.deposited.v2", '{"euros":3}'),
        ("ledger.deposited.v3", '{"cents":300}'),
    ],
)
def test_old_shapes_are_upcast_step_by_step(name, stored):
    assert decode(name, stored) == Deposited(cents=300)


def test_old_names_belong_to_the_current_class():
    names = stored_names_of(Deposited)

    assert names == ("ledger.deposited.v3", "ledger.deposited.v2", "ledger.deposited.v1")
    assert stored_names_of(Opened) == ("ledger.opened.v1",)


def test_encoding_is_canonical():
    event = Shipped(to="Zürich", weights={"b": 1.5, "a": 2.0})

    assert encode(event) == '{"to":"Zürich","weights":{"a":2.0,"b":1.5}}'


@given(some.text(), some.dictionaries(some.text(), some.floats(allow_nan=False, allow_infinity=False)))
def test_what_is_encoded_is_decoded_to_the_same(to, weights):
    from msgspec import json

    event = Shipped(to=to, weights=weights)
    backwards = Shipped(to=to, weights=dict(reversed(weights.items())))

    assert json.decode(encode(event), type=Shipped) == event
    assert encode(backwards) == encode(event)
