"""A node whose server hangs is degraded, and recovers with it."""

import os
import signal

from tests.fleet import PAUSE
from tests.waiting import wait_for


def test_a_server_that_hangs(cluster):
    cluster.clear()
    pid = cluster.up.send("node-2-server", signal.SIGSTOP)
    try:
        # The doctor may have asked the server before the next heartbeat does.
        wait_for(lambda: (cluster.node("node-2")["degraded"] or {}).get("reason") == "server_silent", pause=PAUSE)
    finally:
        os.kill(pid, signal.SIGCONT)
    cluster.wait_for_phase("node-2", "online")
    node = cluster.node("node-2")
    assert (node["degraded"], node["doctor_summary"]["failed"]) == (None, 0)
    assert node["server_state"]["include_seen"] is True
