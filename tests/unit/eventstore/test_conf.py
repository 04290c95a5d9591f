"""The setting `EVENTSTORE`."""

import pytest

from eventstore.conf import Conf, conf


def test_every_key_may_be_missing(settings):
    settings.EVENTSTORE = {"CHANNEL": "shop"}
    assert conf() == Conf(channel="shop")
    del settings.EVENTSTORE
    assert conf() == Conf()


def test_an_unknown_key_is_refused(settings):
    settings.EVENTSTORE = {"CHANEL": "shop"}
    with pytest.raises(TypeError, match="chanel"):
        conf()
