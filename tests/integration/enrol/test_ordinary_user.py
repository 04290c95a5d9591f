"""The tests on a host of their own need no root, also where all tests run as root: an ordinary user makes such a host."""

from tests.namespace import namespace

MAKE_ONE = """
from tests.namespace import debian_redis, namespace
with namespace() as host, debian_redis(host) as server:
    done = host.run("id -un; useradd --system bob; id -un bob; setpriv --reuid=bob --clear-groups id -un")
    print(server.call("PING") + done.stdout + done.stderr)
"""

#: The programs of the package uidmap act for the root of this host when root of this host owns them.
AS_ANN = """
install --mode 4755 /usr/bin/newuidmap /usr/bin/newgidmap /opt/programs
useradd --create-home --home-dir /opt/ann ann
echo ann:5000:50000 | tee /etc/subuid > /etc/subgid
cd /opt/modfleet/checkout
setpriv --reuid=ann --regid=ann --clear-groups /opt/modfleet/bin/python -c "$MAKE_ONE"
"""


def test_an_ordinary_user_makes_a_host():
    with namespace() as host:
        done = host.run(AS_ANN, HOME="/opt/ann", MAKE_ONE=MAKE_ONE)
        assert (done.stdout, done.stderr) == ("PONG\nroot\nbob\nbob\n\n", "")
