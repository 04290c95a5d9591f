"""docs/howto/webhooks.md: its code verifies what is really sent."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.webhooks.conftest import join, register
from webhooks.models import Webhook

PAGE = Path(__file__).parents[3] / "docs/howto/webhooks.md"


@pytest.fixture
def verify():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 15
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["verify"]


@pytest.fixture
def got(committed_db, receiver, delivering, waits):
    there = receiver()
    register(there.url)
    delivering()
    join("a")
    waits(lambda: there.received)
    return there.received[0]


def test_it_works(verify, got):
    assert verify(got.headers, got.body, Webhook.objects.get().secret) == got.event


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_changed_header_is_noticed(verify, got, name):
    value = got.headers[name]
    other = "1" if value[-2] == "0" else "0"
    with pytest.raises(ValueError, match=r"signature|old"):
        verify(got.headers | {name: value[:-2] + other + value[-1]}, got.body, Webhook.objects.get().secret)


def test_a_changed_body_is_noticed(verify, got):
    with pytest.raises(ValueError, match="signature"):
        verify(got.headers, got.body.replace(b"joined", b"deleted"), Webhook.objects.get().secret)


def test_another_secret_does_not_fit(verify, got):
    with pytest.raises(ValueError, match="signature"):
        verify(got.headers, got.body, "whsec_" + "A" * 32)


def test_an_old_message_is_refused(verify, got):
    with pytest.raises(ValueError, match="old"):
        verify(got.headers | {"webhook-timestamp": "1600000000"}, got.body, Webhook.objects.get().secret)
