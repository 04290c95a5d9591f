"""Envelopes: what is signed, and what a changed, repeated or foreign one is refused for."""

import base64
from dataclasses import fields, replace

import msgspec
import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from rollout.signing import (
    PROTOCOLS,
    ControlKey,
    ControlSecret,
    Envelope,
    NodeSecret,
    Purpose,
    UntrustedError,
    envelope_from,
    from_text,
    is_public_key,
    key_id,
    opened,
    read,
    require,
    to_text,
)

CONTROL, OTHER_CONTROL = ControlSecret("secret"), ControlSecret("another secret")
# The same in each process: the names of tests contain what is made from them.
NODE, OTHER_NODE = NodeSecret(private=b"1" * 32), NodeSecret(private=b"2" * 32)
MESSAGE = {"rollout": "r1", "text": 'ä\0"', "number": 1.5, "list": [None, True]}

TO_NODE = CONTROL.sign(Purpose.EXECUTE, "n1", MESSAGE)
FROM_NODE = NODE.sign(Purpose.HEARTBEAT, "n1", MESSAGE, to=CONTROL.public)

#: Another value of each field. None of them is checked by its type alone.
OTHERS = {
    "protocol": 2,
    "purpose": Purpose.CANCEL,
    "node": "n2",
    "key": OTHER_CONTROL.public.id,
    "peer": CONTROL.public.id,
    "payload": TO_NODE.payload.replace("r1", "r2"),
    "signature": OTHER_CONTROL.sign(Purpose.EXECUTE, "n1", MESSAGE).signature,
}


def over_the_wire(envelope):
    return envelope_from(msgspec.json.decode(msgspec.json.encode(envelope)))


def test_each_field_is_changed_below():
    assert {each.name for each in fields(Envelope)} == OTHERS.keys()


# --- Messages to a node -----------------------------------------------------------------------------------------------


def test_it_works():
    assert opened(over_the_wire(TO_NODE), Purpose.EXECUTE, "n1", [OTHER_CONTROL.public, CONTROL.public]) == MESSAGE


@pytest.mark.parametrize(("name", "value"), OTHERS.items())
def test_a_changed_message_to_a_node_is_refused(name, value):
    changed = replace(TO_NODE, **{name: value})
    assert changed != TO_NODE
    with pytest.raises(UntrustedError):
        CONTROL.public.verify(changed)
    with pytest.raises(UntrustedError):
        opened(changed, Purpose.EXECUTE, "n1", [CONTROL.public])


@pytest.mark.parametrize("purpose", sorted(set(Purpose) - {Purpose.EXECUTE}))
def test_a_message_for_another_purpose_is_refused(purpose):
    with pytest.raises(UntrustedError, match=f"execute for n1 instead of {purpose} for n1"):
        opened(TO_NODE, purpose, "n1", [CONTROL.public])


def test_a_message_for_another_node_is_refused():
    with pytest.raises(UntrustedError, match="execute for n1 instead of execute for n2"):
        opened(TO_NODE, Purpose.EXECUTE, "n2", [CONTROL.public])


@pytest.mark.parametrize("trusted", [[], [OTHER_CONTROL.public]])
def test_a_message_of_another_control_plane_is_refused(trusted):
    with pytest.raises(UntrustedError, match="is not known"):
        opened(TO_NODE, Purpose.EXECUTE, "n1", trusted)


def test_a_signature_is_not_believed_for_the_id_of_its_key():
    """The id is 64 bits: it finds a key, and proves nothing."""
    forged = replace(OTHER_CONTROL.sign(Purpose.EXECUTE, "n1", MESSAGE), key=CONTROL.public.id)
    with pytest.raises(UntrustedError, match="the signature is not valid"):
        opened(forged, Purpose.EXECUTE, "n1", [CONTROL.public])


def test_a_protocol_that_is_not_known_is_refused():
    assert 7 not in PROTOCOLS
    with pytest.raises(UntrustedError, match="protocol 7 is not known"):
        require(replace(TO_NODE, protocol=7), Purpose.EXECUTE, "n1")


@given_any(st.data())
def test_fields_cannot_be_shifted_into_each_other(data):
    """Two envelopes that differ have different bytes below their signatures."""
    some = st.builds(
        Envelope,
        protocol=st.integers(1, 11),
        purpose=st.sampled_from(Purpose),
        node=st.from_regex(r"\A[a1.-]{1,3}\Z").filter(lambda name: name not in {".", ".."}),
        key=st.just("0" * 16),
        peer=st.sampled_from(["", "1" * 16]),
        payload=st.text("a1\0", max_size=4),
    )
    first, second = data.draw(some), data.draw(some)
    assert (first == second) == (first.covered() == second.covered())


# --- Messages of a node -----------------------------------------------------------------------------------------------


def test_the_control_plane_reads_what_a_node_says():
    envelope = over_the_wire(FROM_NODE)
    CONTROL.verify(envelope, NODE.public)
    assert read(envelope) == MESSAGE


@pytest.mark.parametrize(
    ("name", "value"),
    (OTHERS | {"key": key_id(OTHER_NODE.public), "peer": OTHER_CONTROL.public.id, "signature": ""}).items(),
)
def test_a_changed_message_of_a_node_is_refused(name, value):
    changed = replace(FROM_NODE, **{name: value})
    assert changed != FROM_NODE
    with pytest.raises(UntrustedError):
        CONTROL.verify(changed, NODE.public)


def test_a_message_of_another_node_is_refused():
    with pytest.raises(UntrustedError, match="another key"):
        CONTROL.verify(FROM_NODE, OTHER_NODE.public)
    forged = replace(OTHER_NODE.sign(Purpose.HEARTBEAT, "n1", MESSAGE, to=CONTROL.public), key=FROM_NODE.key)
    with pytest.raises(UntrustedError, match="the signature is not valid"):
        CONTROL.verify(forged, NODE.public)


def test_a_message_to_another_control_plane_is_refused():
    with pytest.raises(UntrustedError, match="another key"):
        OTHER_CONTROL.verify(FROM_NODE, NODE.public)
    with pytest.raises(UntrustedError, match="the signature is not valid"):
        OTHER_CONTROL.verify(replace(FROM_NODE, peer=OTHER_CONTROL.public.id), NODE.public)


@pytest.mark.parametrize("signature", ["", "ä", "\ud800", "A" * 86, "A" * 127, "-"])
def test_a_signature_that_is_none_is_refused(signature):
    with pytest.raises(UntrustedError):
        CONTROL.public.verify(replace(TO_NODE, signature=signature))
    with pytest.raises(UntrustedError):
        CONTROL.verify(replace(FROM_NODE, signature=signature), NODE.public)


@pytest.mark.parametrize("payload", ["a\ud800b", "\udfff"])
def test_a_text_that_cannot_be_encoded_is_refused(payload):
    with pytest.raises(UntrustedError):
        CONTROL.public.verify(replace(TO_NODE, payload=payload))
    with pytest.raises(UntrustedError):
        CONTROL.verify(replace(FROM_NODE, payload=payload), NODE.public)


# --- Bodies that are no envelopes -------------------------------------------------------------------------------------

BODY = msgspec.to_builtins(TO_NODE)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"signature": "x"},
        *(
            {key: value for key, value in BODY.items() if key != name}
            for name in ("protocol", "purpose", "node", "key")
        ),
        BODY | {"protocol": 0},
        BODY | {"protocol": "1"},
        BODY | {"protocol": 10**30},
        BODY | {"purpose": "dance"},
        BODY | {"node": ".."},
        BODY | {"node": "a\0b"},
        BODY | {"key": "0" * 15},
        BODY | {"key": "0" * 16 + "\n"},
        BODY | {"peer": "x" * 16},
        BODY | {"payload": {}},
        BODY | {"payload": "\ud800"},
        BODY | {"signature": "A" * 129},
    ],
)
def test_a_body_that_is_no_envelope_is_refused(body):
    with pytest.raises(UntrustedError):
        opened(envelope_from(body), Purpose.EXECUTE, "n1", [CONTROL.public])


@pytest.mark.parametrize("payload", ["", "{", "[" * 100_000, "NaN", "\0"])
def test_a_payload_that_is_no_json_is_refused(payload):
    with pytest.raises(UntrustedError, match="the payload is not JSON"):
        read(replace(TO_NODE, payload=payload))


# --- Keys -------------------------------------------------------------------------------------------------------------


def test_all_processes_derive_the_same_keys():
    assert ControlSecret("secret").public == CONTROL.public
    assert ControlSecret("secret").sign(Purpose.EXECUTE, "n1", MESSAGE) == TO_NODE
    assert NodeSecret(private=NODE.private).sign(Purpose.HEARTBEAT, "n1", MESSAGE, to=CONTROL.public) == FROM_NODE


def test_other_secret_keys_have_other_keys():
    assert OTHER_CONTROL.public.id != CONTROL.public.id
    assert OTHER_CONTROL.public.signing != CONTROL.public.signing
    assert OTHER_CONTROL.public.agreement != CONTROL.public.agreement
    assert CONTROL.public.signing != CONTROL.public.agreement


def test_both_public_keys_are_in_the_id():
    mixed = [
        ControlKey(signing=CONTROL.public.signing, agreement=OTHER_CONTROL.public.agreement),
        ControlKey(signing=OTHER_CONTROL.public.signing, agreement=CONTROL.public.agreement),
    ]
    assert len({each.id for each in (CONTROL.public, OTHER_CONTROL.public, *mixed)}) == 4


def test_nothing_shows_a_private_key():
    private = to_text(NODE.private)
    assert private not in repr(NODE)
    assert private not in repr(FROM_NODE)
    assert repr(NODE.private) not in repr(NODE)


def test_public_keys():
    assert is_public_key(NodeSecret.generate().public)
    assert NodeSecret.generate() != NodeSecret.generate()
    assert is_public_key(CONTROL.public.agreement)


#: The points of low order of Curve25519 (RFC 7748, section 6.1; https://cr.yp.to/ecdh.html). With them, everyone knows the
#: shared secret: it is 0.
PRIME = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    PRIME - 1,
    PRIME,
    PRIME + 1,
]


@pytest.mark.parametrize("highest_bit", [0, 2**255])
@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_point_of_low_order_is_no_public_key(point, highest_bit):
    assert not is_public_key(to_text((point + highest_bit).to_bytes(32, "little")))


@pytest.mark.parametrize("text", ["", "x", "A" * 42, "A" * 44, "ä" * 43, NODE.public + "=", NODE.public + "\n"])
def test_a_text_that_is_no_public_key(text):
    assert not is_public_key(text)


def test_a_key_has_only_one_text():
    """Else a node could have the same key twice."""
    key = to_text(bytes([0xFB, 0xF9]) + from_text(NODE.public)[2:])
    others = [key.replace("-", "+"), key.replace("_", "/"), key[:-1] + chr(ord(key[-1]) + 1)]
    assert from_text(others[2]) == from_text(key)
    assert is_public_key(key)
    assert [is_public_key(each) for each in others] == [False] * 3


@given_any(st.binary(max_size=64))
def test_texts_of_bytes(content):
    assert from_text(to_text(content)) == content
    assert to_text(content) == base64.urlsafe_b64encode(content).decode().rstrip("=")
