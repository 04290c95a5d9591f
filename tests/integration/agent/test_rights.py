"""The documented rights of an agent that loads modules suffice for all that it does, with an append-only file too."""

from hashlib import sha256

import pytest

from modfleet.enrol.rights import LOAD, rights_of, rules
from rollout.messages import Phase
from tests.integration.agent import test_adopt
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_adopt import adopt
from tests.integration.agent.test_removal import allow

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])
site, greet = test_adopt.site, test_adopt.greet


@pytest.mark.parametrize("owner", ["include", "rewrite"])
def test_they_suffice(site, greet, built, owner):
    site.server.switch_aof_on()
    allow(site, *rules(rights_of(LOAD), owner, sha256(b"secret").hexdigest()).split())
    done = [adopt(site, greet), site.install(built("options", 1))]
    site.server.call("CONFIG", "SET", "options.depth", 7)
    done += [site.install(built("options", 2))]
    assert site.server.call("CONFIG", "GET", "options.depth")[1] == "7"
    done += [site.install(built("greet", 10001)), site.remove(built("options", 2)), site.remove(built("greet", 10001))]
    assert [(each.phase, each.reason) for each in done] == [(Phase.SUCCEEDED, None)] * len(done)
    assert site.server.loaded() == set()
    site.server.restart()
