"""`api.strict_json`: what is refused, and that nothing but `InvalidJson` ever comes out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.strict_json import InvalidJson, parse

LIMIT = 1024 * 1024

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), inner)
    ),
    max_leaves=20,
)


def test_it_works():
    body = b'{"module_name": "search", "version": 10203.0, "tags": [true, null, -7, "\\u00e9\\ud83d\\ude00"]}'

    value = parse(body, max_bytes=LIMIT)

    assert value == {"module_name": "search", "version": 10203.0, "tags": [True, None, -7, "é😀"]}


@given(json_values)
def test_what_json_writes_is_read_back(value):
    assert parse(json.dumps(value).encode(), max_bytes=LIMIT, max_depth=100) == value


@given(st.binary())
def test_any_bytes_give_a_value_or_invalid_json(data):
    try:
        value = parse(data, max_bytes=LIMIT)
    except InvalidJson:
        return

    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@given(st.text('[]{}":,\\u0d8e1-.NaIinfty \n'))
def test_any_text_of_json_characters_gives_a_value_or_invalid_json(text):
    try:
        value = parse(text.encode(), max_bytes=LIMIT)
    except InvalidJson:
        return

    assert "\0" not in json.dumps(value, allow_nan=False, ensure_ascii=False)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
@pytest.mark.parametrize("times", [40, 900, 100_000])
def test_deep_nesting_is_refused(opening, closing, times):
    for body in (opening * times, opening * times + b"1" + closing * times):
        with pytest.raises(InvalidJson):
            parse(body, max_bytes=2 * LIMIT)


def test_the_deepest_allowed_is_read():
    parse(b"[" * 32 + b"]" * 32, max_bytes=LIMIT)

    with pytest.raises(InvalidJson, match="more than 32 deep"):
        parse(b"[" * 33 + b"]" * 33, max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": 1, "a": 2}', "same key twice"),
        (b'{"a": 1, "\\u0061": 2}', "same key twice"),
        (b'[{"deep": {"a": 1, "a": 1}}]', "same key twice"),
        (b"NaN", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b'{"a": Infinity}', "Infinity"),
        (b"1e999", "too large"),
        (b"[-1e999]", "too large"),
        (b"9223372036854775808", "64 bits"),
        (b"-9223372036854775809", "64 bits"),
        (b"1" * 100_000, "64 bits"),
        (b"1." + b"1" * 100_000, "100 characters"),
        (b'"a\\u0000b"', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'"\x00"', "not valid JSON"),
        (b'"\\ud800"', "surrogate"),
        (b'["\\udc00\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "not valid JSON"),
        (b"", "not valid JSON at line 1, column 1"),
        (b"{} {}", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b"[1,]", "not valid JSON"),
        (b"01", "not valid JSON"),
        (b'"tab\there"', "not valid JSON"),
    ],
)
def test_refuses(body, words):
    with pytest.raises(InvalidJson, match=words):
        parse(body, max_bytes=LIMIT)


def test_a_byte_order_mark_is_ignored():
    assert parse(b'\xef\xbb\xbf{"a": 1}', max_bytes=LIMIT) == {"a": 1}


def test_the_limit_is_in_bytes():
    assert parse('"é"'.encode(), max_bytes=4) == "é"

    with pytest.raises(InvalidJson, match="larger than 3 bytes"):
        parse('"é"'.encode(), max_bytes=3)


def test_the_ends_of_64_bits_are_read():
    assert parse(b"[9223372036854775807, -9223372036854775808]", max_bytes=LIMIT) == [2**63 - 1, -(2**63)]
