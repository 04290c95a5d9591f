"""What is stored in the database, or compared with what is, goes by the database's clock: `eventstore.database_now`.

Processes run on machines whose clocks differ. Durations are measured by `time.monotonic()`.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = (
    "accounts",
    "api",
    "artifacts_app",
    "config",
    "console",
    "eventstore",
    "modfleet",
    "modules_app",
    "operations",
    "rollout",
    "webhooks",
)
OWN_CLOCK = re.compile(
    r"\b(?:timezone|datetime|date)\.(?:now|utcnow|today)\(|\btime\.(?:time|time_ns|gmtime|localtime)\("
    r"|\bfrom time import|\bauto_now|\blocaltime\(|\bNow\(\)"
)
#: Files that use the clock of their own machine, each with its reason.
ALLOWED = {
    "accounts/tokens.py": "a token names its own end, and PyJWT compares that with the machine's clock",
    "modfleet/access_token.py": "the command line asks for a new token before its own copy ends",
    "modfleet/certificate.py": "a certificate is checked by the clock of whoever connects",
    "modfleet/cluster.py": "`modfleet up` compares when its nodes were heard of: its database is on the same machine",
    "modfleet/commands/node_tables.py": "a person reads how old the findings of a doctor are",
    "modfleet/commands/proving.py": "a person reads when a certificate was made",
    "rollout/agent/control_plane/api.py": "a proof says when it was made, so that a wrong clock is seen and an old proof refused",
    "rollout/agent/doctor/certificates.py": "a certificate is checked by the clock of the host that connects",
    "rollout/agent/doctor/control.py": "the doctor compares the host's clock with the others",
    "rollout/agent/doctor/scratch.py": "a person reads when the start was last checked, by the clock of the same host",
    "rollout/agent/failover/shard.py": "an agent that was killed sees how old a failover is, by the clock of the same host",
    "rollout/agent/inspection/process.py": "the times of files are by the clock of their host",
    "rollout/agent/node/configuration_watch.py": "a change of a file is dated by the clock of its host",
    "rollout/agent/node/start_checks.py": "a person reads when the start was last checked, by the clock of the same host",
    "rollout/agent/node/holds.py": "a question says when it was sent, so that an old one is refused",
    "rollout/agent/restart/kept_data.py": "the times of files are by the clock of their host",
    "rollout/agent/operations/safe_removal.py": "a message says until when a removal is refused, for people at the node",
    "rollout/agent/scratch/server.py": "the age of a directory is by the clock of its host",
    "rollout/agent/operations/expiry.py": "the agent knows no database, and checks its clock against the broker's",
    "rollout/agent/node/readings.py": "an inventory has the node's time as a number, for control planes of older releases",
    "rollout/agent/node/node.py": "a heartbeat says what the node's clock shows, so that a wrong one is seen",
    "rollout/agent/control_plane/rotation.py": "a new key says when it was sent, so that an old request is refused",
    "rollout/agent/server/server_log.py": "journald names the time of a line by the clock of the host, which is the agent's too",
    "webhooks/sending.py": "the receiver compares the header with its own clock",
}


def test_only_these_files_use_the_clock_of_their_machine():
    found = {
        str(path.relative_to(ROOT))
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
        if "migrations" not in path.parts and OWN_CLOCK.search(path.read_text())
    }
    assert found == set(ALLOWED)
