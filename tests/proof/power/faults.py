"""The faults that a proof must catch. Each is a patch of the product, and is seen by clients in one scenario."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`what` is wrong, one sentence. `rules`: at least one of them is violated. `scenario`: in which that happens."""

    name: str
    what: str
    rules: tuple[str, ...]
    scenario: str

    @property
    def patch(self) -> Path:
        return FOLDER / f"{self.name}.patch"


FAULTS = (
    Fault(
        name="two-step-swap",
        what="An upgrade unloads the former version, reads the new file, and then loads it.",
        rules=("load_error",),
        scenario="a_large_module_is_upgraded",
    ),
    Fault(
        name="third-step",
        what="The transaction of an upgrade loads the former version again as its third step, also after a refused unload.",
        rules=("load_error",),
        scenario="an_unload_is_refused",
    ),
    Fault(
        name="master-first",
        what="The master gets a new module before its replicas, which drop what it sends them.",
        rules=("lost",),
        scenario="clients_use_a_new_module_at_once",
    ),
    Fault(
        name="line-at-the-end",
        what="The line of an upgraded module moves to the end of the file, after a module that needs it.",
        rules=("restart",),
        scenario="a_module_that_another_one_needs_is_upgraded",
    ),
    Fault(
        name="no-wait-for-the-link",
        what="The next replica is restarted before the last one has its link to the master again.",
        rules=("restart_error",),
        scenario="a_replica_needs_long_for_its_link",
    ),
    Fault(
        name="failover-without-equal-offset",
        what="A replica becomes the master before it has all that the former one has acknowledged.",
        rules=("lost",),
        scenario="a_replica_lags_at_the_failover",
    ),
    Fault(
        name="old-file-deleted-early",
        what="The files of the former version are deleted before the new one has loaded.",
        rules=("version",),
        scenario="an_upgrade_is_undone",
    ),
    Fault(
        name="stale-arguments",
        what="An upgrade loads the new version with the arguments of the former one.",
        rules=("version",),
        scenario="an_upgrade_changes_the_arguments",
    ),
    Fault(
        name="upgrade-during-a-full-sync",
        what="A replica is restarted while another one gets all data of their master.",
        rules=("restart_error",),
        scenario="a_full_sync_between_two_waves",
    ),
    Fault(
        name="both-copies-at-once",
        what="Two copies of a shard are restarted at the same time.",
        rules=("restart_error",),
        scenario="both_replicas_need_a_restart",
    ),
    Fault(
        name="killed-between-swap-and-persist",
        what="An agent that was killed after the swap does not write the line when it goes on.",
        rules=("restart",),
        scenario="the_agent_is_killed_after_the_swap",
    ),
    Fault(
        name="report-before-probe",
        what="The agent reports a success without a probe.",
        rules=("version",),
        scenario="a_probe_fails",
    ),
    Fault(
        name="plain-sentinel-failover",
        what="Sentinel fails over while the former master still accepts writes.",
        rules=("lost",),
        scenario="sentinel_fails_over",
    ),
    Fault(
        name="failover-without-timeout",
        what="FAILOVER has no timeout, so writes wait for as long as the replicas do not catch up.",
        rules=("slow_retry",),
        scenario="replicas_do_not_catch_up",
    ),
    Fault(
        name="new-encoding-and-full-sync",
        what="A replica with a new encoding may become the master of one that cannot read it.",
        rules=("restart_error",),
        scenario="a_new_encoding_waits_for_a_person",
    ),
    Fault(
        name="forgotten-sub-replica",
        what="A replica of a replica gets a new module after the master.",
        rules=("lost",),
        scenario="clients_use_a_new_module_at_once",
    ),
    Fault(
        name="missing-line",
        what="A loaded module gets no line, so the server does not load it again at its next start.",
        rules=("restart",),
        scenario="an_upgrade_changes_the_arguments",
    ),
)
