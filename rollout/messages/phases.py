"""What an operation does, its phases, and the reasons of outcomes."""

from enum import StrEnum


class Action(StrEnum):
    INSTALL = "install"
    REMOVE = "remove"


class Activation(StrEnum):
    """How far an installation goes: files on disk only, or also loaded into the running server and probed."""

    FILES = "files"
    LOAD = "load"


class Way(StrEnum):
    """How an operation changes what a server has loaded: MODULE LOAD and UNLOAD while it runs, or a restart."""

    LOAD = "load"
    RESTART = "restart"


class Ways(StrEnum):
    """The ways that a rollout may take. `auto`: load where that is possible, restart elsewhere."""

    LOAD = "load"
    RESTART = "restart"
    AUTO = "auto"


def activation_in_one_word(activation: str, ways: str) -> str:
    """Return the `activation` of requests and answers: `files`, or how servers come to load the version."""
    return activation if activation == Activation.FILES else ways


class FailedCalls(StrEnum):
    """What happens if a larger share of the calls of a module's commands fails than before."""

    WARN = "warn"
    STOP = "stop"


class Phase(StrEnum):
    """Phase of an operation: what one rollout does to one node."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    LOADING = "loading"
    RESTARTING = "restarting"
    PROBING = "probing"
    SETTLING = "settling"
    REMOVING = "removing"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"
    SKIPPED = "skipped"
    ROLLED_BACK = "rolled_back"

    @property
    def is_final(self) -> bool:
        return self in FINAL_PHASES


FINAL_PHASES = frozenset(
    {Phase.SUCCEEDED, Phase.FAILED, Phase.TIMED_OUT, Phase.CANCELED, Phase.SKIPPED, Phase.ROLLED_BACK}
)
RUNNING_PHASES = frozenset(
    {
        Phase.FETCHING,
        Phase.VERIFYING,
        Phase.INSTALLING,
        Phase.LOADING,
        Phase.RESTARTING,
        Phase.PROBING,
        Phase.SETTLING,
        Phase.REMOVING,
        Phase.CANCELING,
    }
)


#: The phases that an agent reports. Only the control plane sets the others. `scheduled` returns the operation.
REPORTED_PHASES = (RUNNING_PHASES | FINAL_PHASES | {Phase.SCHEDULED}) - {
    Phase.CANCELING,
    Phase.TIMED_OUT,
    Phase.ROLLED_BACK,
}


class Reason(StrEnum):
    """Why an operation, a rollout or a node is in its phase."""

    ALREADY_INSTALLED = "already_installed"
    NOT_INSTALLED = "not_installed"
    INCOMPATIBLE_ARCH = "incompatible_arch"
    INCOMPATIBLE_OS = "incompatible_os"
    INCOMPATIBLE_REDIS_VERSION = "incompatible_redis_version"
    BUNDLED = "bundled"
    UNMANAGED_REPLICA = "unmanaged_replica"
    UNMANAGED_MASTER = "unmanaged_master"
    REPLICA_LACKS_MODULE = "replica_lacks_module"
    REPLICA_SILENT = "replica_silent"
    MASTER_HAS_MODULE = "master_has_module"
    ROLE_CHANGED = "role_changed"
    SERVER_NOT_READY = "server_not_ready"
    BACKUP_RUNNING = "backup_running"
    MISSING_DEPENDENCY = "missing_dependency"
    NODE_DRAINING = "node_draining"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    FETCH_FAILED = "fetch_failed"
    DISK_FULL = "disk_full"
    IO_ERROR = "io_error"
    LOAD_FAILED = "load_failed"
    FILE_NOT_EXECUTABLE = "file_not_executable"
    FILE_NOT_READABLE = "file_not_readable"
    FILE_NOT_FOUND = "file_not_found"
    EXECUTION_FORBIDDEN = "execution_forbidden"
    MISSING_LIBRARY = "missing_library"
    UNDEFINED_SYMBOL = "undefined_symbol"
    INCOMPATIBLE_SERVER = "incompatible_server"
    COMMAND_NAME_TAKEN = "command_name_taken"
    SCRATCH_LOAD_FAILED = "scratch_load_failed"
    SCRATCH_HUNG = "scratch_hung"
    SCRATCH_UNAVAILABLE = "scratch_unavailable"
    OPTIONS_LOST = "options_lost"
    PROBE_FAILED = "probe_failed"
    MODULE_COMMAND_DISABLED = "module_command_disabled"
    MODULE_NOT_OURS = "module_not_ours"
    NOTHING_TO_ADOPT = "nothing_to_adopt"
    PERMISSION_DENIED = "permission_denied"
    PERSISTENCE_FAILED = "persistence_failed"
    PERSISTENCE_CONFLICT = "persistence_conflict"
    EXTERNAL_CONFIGURATION = "external_configuration"
    UNLOAD_REFUSED = "unload_refused"
    EXPORTS_DATA_TYPES = "exports_data_types"
    MODULE_BUSY = "module_busy"
    USED_BY_MODULE = "used_by_module"
    ACL_REFERENCES_MODULE = "acl_references_module"
    DATA_IN_USE = "data_in_use"
    IN_USE = "in_use"
    AUX_DATA = "aux_data"
    AOF_REWRITE_FAILED = "aof_rewrite_failed"
    UNLOADED_BY_HAND = "unloaded_by_hand"
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_CRASHED = "server_crashed"
    SERVER_RESTARTED = "server_restarted"
    RESTART_REQUIRED = "restart_required"
    RESTART_FAILED = "restart_failed"
    WOULD_LOSE_DATA = "would_lose_data"
    MIN_REPLICAS = "min_replicas"
    SAVE_UNSAFE = "save_unsafe"
    FAILOVER_NOT_POSSIBLE = "failover_not_possible"
    PRE_COMMAND_FAILED = "pre_command_failed"
    SYNC_LOOP = "sync_loop"
    ONE_WAY = "one_way"
    SERVER_HANGS = "server_hangs"
    LINK_DOWN = "link_down"
    ERROR_REPLIES = "error_replies"
    FAILED_CALLS = "failed_calls"
    STALE_GENERATION = "stale_generation"
    CLOCK_SKEW = "clock_skew"
    AGENT_ERROR = "agent_error"
    INVENTORY_MISMATCH = "inventory_mismatch"
    AGENT_TOO_OLD = "agent_too_old"
    OBSERVE_ONLY = "observe_only"
    NODE_DECOMMISSIONED = "node_decommissioned"
    NODE_UNREACHABLE = "node_unreachable"
    NODE_DEADLINE = "node_deadline"
    ERROR_THRESHOLD = "error_threshold"
    PROGRESS_DEADLINE = "progress_deadline"
    NEWER_ROLLOUT = "newer_rollout"
    MANUAL = "manual"

    @classmethod
    def _missing_(cls, value: object) -> "Reason | None":
        """Return the reason that had this name in older logs, rows and agents."""
        return cls.ACL_REFERENCES_MODULE if value == "named_in_acl" else None


#: Reasons that older control planes do not know, each with the one that they are sent instead.
BROADER = {
    Reason.FILE_NOT_EXECUTABLE: Reason.LOAD_FAILED,
    Reason.FILE_NOT_READABLE: Reason.LOAD_FAILED,
    Reason.FILE_NOT_FOUND: Reason.LOAD_FAILED,
    Reason.EXECUTION_FORBIDDEN: Reason.LOAD_FAILED,
    Reason.MISSING_LIBRARY: Reason.LOAD_FAILED,
    Reason.UNDEFINED_SYMBOL: Reason.LOAD_FAILED,
    Reason.INCOMPATIBLE_SERVER: Reason.LOAD_FAILED,
    Reason.COMMAND_NAME_TAKEN: Reason.LOAD_FAILED,
    Reason.SCRATCH_LOAD_FAILED: Reason.LOAD_FAILED,
    Reason.SCRATCH_HUNG: Reason.LOAD_FAILED,
    Reason.SCRATCH_UNAVAILABLE: Reason.LOAD_FAILED,
    Reason.OPTIONS_LOST: Reason.LOAD_FAILED,
    Reason.PERMISSION_DENIED: Reason.LOAD_FAILED,
    Reason.NOTHING_TO_ADOPT: Reason.MODULE_NOT_OURS,
    Reason.PERSISTENCE_FAILED: Reason.IO_ERROR,
    Reason.PERSISTENCE_CONFLICT: Reason.IO_ERROR,
    Reason.EXTERNAL_CONFIGURATION: Reason.LOAD_FAILED,
    Reason.OBSERVE_ONLY: Reason.AGENT_ERROR,
    Reason.EXPORTS_DATA_TYPES: Reason.UNLOAD_REFUSED,
    Reason.MODULE_BUSY: Reason.UNLOAD_REFUSED,
    Reason.USED_BY_MODULE: Reason.UNLOAD_REFUSED,
    Reason.ACL_REFERENCES_MODULE: Reason.UNLOAD_REFUSED,
    Reason.DATA_IN_USE: Reason.UNLOAD_REFUSED,
    Reason.IN_USE: Reason.UNLOAD_REFUSED,
    Reason.AUX_DATA: Reason.UNLOAD_REFUSED,
    Reason.AOF_REWRITE_FAILED: Reason.UNLOAD_REFUSED,
    Reason.SERVER_RESTARTED: Reason.SERVER_UNREACHABLE,
    Reason.SERVER_HANGS: Reason.NODE_DEADLINE,
    Reason.LINK_DOWN: Reason.PROBE_FAILED,
    Reason.ERROR_REPLIES: Reason.PROBE_FAILED,
    Reason.FAILED_CALLS: Reason.PROBE_FAILED,
}
#: The reasons that an agent reports. Only the control plane sets the others.
REPORTED_REASONS = frozenset(
    {
        *BROADER,
        Reason.ALREADY_INSTALLED,
        Reason.NOT_INSTALLED,
        Reason.ROLE_CHANGED,
        Reason.SERVER_NOT_READY,
        Reason.BACKUP_RUNNING,
        Reason.CHECKSUM_MISMATCH,
        Reason.FETCH_FAILED,
        Reason.DISK_FULL,
        Reason.IO_ERROR,
        Reason.LOAD_FAILED,
        Reason.PROBE_FAILED,
        Reason.MODULE_COMMAND_DISABLED,
        Reason.MODULE_NOT_OURS,
        Reason.UNLOAD_REFUSED,
        Reason.SERVER_UNREACHABLE,
        Reason.SERVER_CRASHED,
        # Only in answers to commands with the way `restart`, which older control planes do not send.
        Reason.RESTART_REQUIRED,
        Reason.RESTART_FAILED,
        Reason.WOULD_LOSE_DATA,
        Reason.SAVE_UNSAFE,
        Reason.FAILOVER_NOT_POSSIBLE,
        Reason.PRE_COMMAND_FAILED,
        Reason.SYNC_LOOP,
        Reason.STALE_GENERATION,
        Reason.CLOCK_SKEW,
        Reason.AGENT_ERROR,
        Reason.NODE_DEADLINE,
        Reason.MANUAL,
    }
)


#: Why an agent returns an operation before it changes the server: it is released again later, and that is no failure.
RETURNING = frozenset(
    {
        Reason.ROLE_CHANGED,
        Reason.SERVER_NOT_READY,
        Reason.BACKUP_RUNNING,
        Reason.SAVE_UNSAFE,
        Reason.FAILOVER_NOT_POSSIBLE,
    }
)
