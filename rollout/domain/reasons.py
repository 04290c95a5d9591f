"""The meaning of each reason, and what a person can do next."""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.messages import Reason


@dataclass(frozen=True, slots=True)
class Words:
    """Two sentences: `meaning` explains the reason, `hint` says what to do next."""

    meaning: str
    hint: str


WORDS: Mapping[Reason, Words] = {
    Reason.ALREADY_INSTALLED: Words("The node already had the module.", "Nothing to do."),
    Reason.NOT_INSTALLED: Words("The node did not have the module.", "Nothing to do."),
    Reason.INCOMPATIBLE_ARCH: Words(
        "There is no build for the node's platform.", "Upload a build for it, then start a rollout of that node."
    ),
    Reason.INCOMPATIBLE_OS: Words(
        "The module has no build for the node's operating system.",
        "Upload a build for it, or a build that names no operating system. If the agent is of an older release, it does "
        "not report the operating system: upgrade it. Then start a rollout of that node.",
    ),
    Reason.INCOMPATIBLE_REDIS_VERSION: Words(
        "The module needs a newer server than the node has, or the node's server is newer than those it was made for.",
        "Upgrade the server, or roll out another version of the module.",
    ),
    Reason.BUNDLED: Words(
        "The server has this module built in, or from its own package.",
        "Nothing to do: Modfleet neither replaces nor removes such a module. Upgrade it with the server.",
    ),
    Reason.UNMANAGED_REPLICA: Words(
        "The server has a replica that is no node of the fleet, so it would not get the module.",
        "Add an agent to that replica, or accept it with `modfleet nodes ignore-replica ADDRESS --reason REASON`.",
    ),
    Reason.UNMANAGED_MASTER: Words(
        "The master of the server is no node of the fleet, so it may still have the module.",
        "Add an agent to that master, then start a rollout of the shard.",
    ),
    Reason.REPLICA_LACKS_MODULE: Words(
        "A replica of the server does not have the module, so it would lose writes.",
        "Include the replica in the rollout: a master gets a module only after all its replicas.",
    ),
    Reason.REPLICA_SILENT: Words(
        "The agent of a replica of the server is silent, so it is not known if the replica still has the module.",
        "Start the agent of the replica that the message names. If that server does not exist any more, decommission its node.",
    ),
    Reason.MASTER_HAS_MODULE: Words(
        "The master of the server still has the module, so this replica would lose writes.",
        "Include the master in the rollout. If it is skipped there, remove the cause of that first.",
    ),
    Reason.ROLE_CHANGED: Words(
        "The server's role, master or replicas changed after the operation was released; or, before a failback, the former master "
        "became the master again.",
        "Nothing to do: an operation that waits is released again when its turn comes in the new order.",
    ),
    Reason.SERVER_NOT_READY: Words(
        "The server loads data, synchronizes with its master, or moves slots, or it would not start again, so the operation "
        "waits.",
        "The message says what it waits for. Nothing to do, unless it lasts.",
    ),
    Reason.BACKUP_RUNNING: Words(
        "A tool copies the server's data, such as `redis-cli --rdb`, so the operation waits.",
        "Nothing to do: the operation continues after the copy has ended.",
    ),
    Reason.RESTART_REQUIRED: Words(
        "The version is loaded or unloaded only by a restart of the server, and the server must not be restarted now.",
        "The message says why, and what allows a restart. See docs/howto/restarts.md.",
    ),
    Reason.RESTART_FAILED: Words(
        "The server was restarted for the version, and did not start or did not load it.",
        "Read the lines of the server's log in the report. The message says which version runs now.",
    ),
    Reason.WOULD_LOSE_DATA: Words(
        "A restart could lose the server's data: it has no append-only file, no save points and no replica in sync.",
        'Switch one of them on, or allow it with "may_discard_data": true.',
    ),
    Reason.MIN_REPLICAS: Words(
        "Without this replica, its master would accept no writes (min-replicas-to-write).",
        "Add a replica, or lower min-replicas-to-write while the rollout runs.",
    ),
    Reason.SAVE_UNSAFE: Words(
        "The server or its host is not ready for a save of its data, so the operation waits.",
        "The message names the child process, the status, or the disk or memory that is missing.",
    ),
    Reason.FAILOVER_NOT_POSSIBLE: Words(
        "No replica could become the master now without losing a write. The master is where it was, and was not restarted.",
        "The message names the check that failed, or what took too long. See docs/howto/restarts.md.",
    ),
    Reason.PRE_COMMAND_FAILED: Words(
        "The command that runs before a restart (MODFLEET_PRE_COMMAND) has failed, so the server was not restarted.",
        "Run the command by hand on the node. The message has the end of its output.",
    ),
    Reason.SYNC_LOOP: Words(
        "The replica has begun a second full synchronization within ten minutes, so nothing more changes in its shard.",
        "Read the logs of the replica and its master. Often client-output-buffer-limit or repl-backlog-size is too small.",
    ),
    Reason.ONE_WAY: Words(
        "The former version cannot read what the new one writes, or that is not known.",
        "Promote the rollout to go on: then there is no rollback. Or abort it. See docs/howto/restarts.md.",
    ),
    Reason.MISSING_DEPENDENCY: Words(
        "A module that this one needs is missing.", "Roll that module out first, then start a rollout of that node."
    ),
    Reason.NODE_DRAINING: Words(
        "The node was draining, so it got no new operation.", "Activate it, then start a rollout of that node."
    ),
    Reason.CHECKSUM_MISMATCH: Words(
        "The node downloaded other bytes than those that were uploaded.",
        "Look for a proxy or a cache that changes downloads. If it happens again, check the storage.",
    ),
    Reason.FETCH_FAILED: Words(
        "The node could not download the package.",
        "Check that the node can reach the control plane's public URL and that the artifact exists, then retry.",
    ),
    Reason.DISK_FULL: Words("The node's disk is full.", "Free some space, then retry."),
    Reason.IO_ERROR: Words(
        "The node could not read or write its files.",
        "Check the node's disk and the permissions of its directories, then retry.",
    ),
    Reason.LOAD_FAILED: Words(
        "The server refused to load the module.",
        "Read what the server said: `why` and the report show it. If the module is at fault, fix it, and upload it as a new "
        "version.",
    ),
    Reason.FILE_NOT_EXECUTABLE: Words(
        "The module's file has no execute permission.",
        "Find what removes the permission below the agent's modules directory, then retry.",
    ),
    Reason.FILE_NOT_READABLE: Words(
        "The server's user may not read the module's file, or a library that it needs.",
        "Give that user the right to read the file and to enter all directories above it, then retry.",
    ),
    Reason.FILE_NOT_FOUND: Words(
        "The server does not see the module's file at its path.",
        "Let server and agent see the modules directory at one path, or set MODFLEET_SERVER_MODULES_DIR for the agent. Then "
        "retry.",
    ),
    Reason.EXECUTION_FORBIDDEN: Words(
        "The server may not execute files in the modules directory.",
        "Remove noexec from the mount, or add the directory to ExecPaths of the server's systemd unit and restart the server. "
        "Then retry.",
    ),
    Reason.MISSING_LIBRARY: Words(
        "A library that the module needs is missing on the node, or too old.",
        "Install it on the node, then retry; or upload a build for the node's operating system as a new version.",
    ),
    Reason.UNDEFINED_SYMBOL: Words(
        "The module needs a function that neither the server nor a library on the node has.",
        "Link the module with the library that has it, and upload it as a new version.",
    ),
    Reason.INCOMPATIBLE_SERVER: Words(
        "The module does not export the function by which this server loads modules.",
        "Build the module for this server, and upload it as a new version; or roll it out to other servers.",
    ),
    Reason.COMMAND_NAME_TAKEN: Words(
        "The server already has a command of the same name, from another module or of its own.",
        "Remove the other module first, or rename the command and upload a new version. Then start a rollout of that node.",
    ),
    Reason.SCRATCH_LOAD_FAILED: Words(
        "The module ended a scratch server of the node. It never reached the live server.",
        "Read what that server said: the message and the report show it. Fix the module, and upload it as a new version.",
    ),
    Reason.SCRATCH_HUNG: Words(
        "The module did not load in time in a scratch server of the node. It never reached the live server.",
        "Fix the module, and upload it as a new version. If it needs longer, set MODFLEET_SCRATCH_SECONDS for the agent.",
    ),
    Reason.SCRATCH_UNAVAILABLE: Words(
        "The node cannot run a scratch server, and the module has loaded in none on a node like this one.",
        "The message names the cause. Remove it, install the module on a similar node first, pack it on such a host, or set "
        "MODFLEET_SCRATCH=warn for the agent. Then retry.",
    ),
    Reason.OPTIONS_LOST: Words(
        "The upgrade would lose options of the module that are set at the server, and no plan has listed them.",
        "The message names them. Retry to go on without them: that retry is for all nodes of the rollout. Or upload a version "
        "that has them, or allow the agent's user to read and set them.",
    ),
    Reason.PROBE_FAILED: Words(
        "The module was loaded, but did not answer as its module.json says.",
        "Compare its commands with its module.json, fix it, and upload it as a new version.",
    ),
    Reason.MODULE_COMMAND_DISABLED: Words(
        "The server does not allow loading modules while it runs, or its MODULE command was renamed.",
        "Set enable-module-command to local in its configuration, remove rename-command MODULE, and restart it. Then retry. Or "
        "let the agent restart the server: docs/howto/restarts.md.",
    ),
    Reason.PERMISSION_DENIED: Words(
        "The agent's user at the server may not call a command that the operation needs.",
        "Allow the command that the message names, with ACL SETUSER on that server. Then retry.",
    ),
    Reason.PERSISTENCE_FAILED: Words(
        "The server could not write its modules into its configuration file.",
        "The message says why. Allow CONFIG REWRITE to the agent's user, and let the server's user write the file and its "
        "directory. Then retry.",
    ),
    Reason.PERSISTENCE_CONFLICT: Words(
        "Another line of the server's configuration would stop the next start, and Modfleet may not change that line. Or a "
        "failover by Sentinel would add such a line.",
        "Do what the message says: remove the line that it names, or set MODFLEET_PERSISTENCE=rewrite. Then retry.",
    ),
    Reason.EXTERNAL_CONFIGURATION: Words(
        "A person or a tool owns the node's configuration, and has not changed it yet.",
        "Add or remove the line that the message names, and restart the server. Then retry.",
    ),
    Reason.MODULE_NOT_OURS: Words(
        "The server has a module of that name that Modfleet did not install.",
        "Adopt it with `modfleet adopt`; or unload it, remove it from the server's configuration, and retry.",
    ),
    Reason.NOTHING_TO_ADOPT: Words(
        "The server has not loaded the module, or Modfleet has installed it.",
        "Nothing to do. To install the module, start a rollout without `adopt`.",
    ),
    Reason.UNLOAD_REFUSED: Words(
        "The server refused to unload the module, its data may need the module, or no person has started the removal.",
        "The message says which. Follow it, then retry.",
    ),
    Reason.EXPORTS_DATA_TYPES: Words(
        "The module exports data types, so the server never unloads it.",
        "Start another rollout with the activation restart, if the server may be restarted. See docs/howto/restarts.md.",
    ),
    Reason.MODULE_BUSY: Words(
        "The module has pending timers or blocked clients, so the server does not unload it now.",
        "Retry later. If it stays busy, start a rollout with the activation restart. See docs/howto/restarts.md.",
    ),
    Reason.USED_BY_MODULE: Words(
        "Another loaded module uses functions of the module, so the server does not unload it.",
        "Remove the other module first, then retry.",
    ),
    Reason.ACL_REFERENCES_MODULE: Words(
        "ACL users have rules that name commands of the module.",
        "Remove these rules with ACL SETUSER on that server, then retry.",
    ),
    Reason.DATA_IN_USE: Words(
        "The server has keys of the module's data types, or may have some.",
        "Keep the module. Or delete these keys, then start another removal with the activation auto: a restart removes it.",
    ),
    Reason.IN_USE: Words(
        "The module's commands were called in the last 10 minutes, or may have been.",
        'Stop the clients that the message names, and retry 10 minutes later; or remove it with "even_if_used": true.',
    ),
    Reason.AUX_DATA: Words(
        "The module writes auxiliary data, so RDB files of the server need it, even without a key of its types.",
        "Keep the module, or replace the server by one without it.",
    ),
    Reason.AOF_REWRITE_FAILED: Words(
        "The server's append-only file may contain commands of the module, and it could not be rewritten without them.",
        "The message says why. Stop the clients that call the module, or correct the problem. Then retry.",
    ),
    Reason.UNLOADED_BY_HAND: Words(
        "A person unloaded the module: it vanished from a server that had not restarted.",
        "Modfleet does not load it again. Start a rollout of that node: install the module, or remove it.",
    ),
    Reason.SERVER_UNREACHABLE: Words(
        "The agent could not reach its server.",
        "Check that the server runs, and check the agent's settings, then retry.",
    ),
    Reason.SERVER_CRASHED: Words(
        "The server stopped while it loaded or unloaded the module, or while the module settled.",
        "Do not roll out this version further. Read the server's log on that node, and fix the module.",
    ),
    Reason.SERVER_RESTARTED: Words(
        "The server was restarted during the operation, and nothing says that it crashed.",
        "Nothing to do: the server settles again from the beginning. Two restarts within 60 s count as a crash.",
    ),
    Reason.SERVER_HANGS: Words(
        "The server has not answered for 10 s during the operation.",
        "If it does not answer again, only SIGKILL ends it. Then start it, and retry with a module that does not hang.",
    ),
    Reason.LINK_DOWN: Words(
        "The replica lost the link to its master while the server settled, and did not get it back in time.",
        "If its master is down, start it. Read the logs of both, then retry.",
    ),
    Reason.ERROR_REPLIES: Words(
        "The replica answered commands of its master with errors while the server settled, so it lost these writes.",
        "Compare the modules of the replica and its master. Then resynchronize the replica: it lacks data.",
    ),
    Reason.FAILED_CALLS: Words(
        "A larger share of the calls of the module's commands failed than before.",
        "Look at what clients send, and at INFO commandstats. Then retry, or roll out another version.",
    ),
    Reason.STALE_GENERATION: Words(
        "The node has already received a newer command for this module.",
        "Start a new rollout of that node. A retry in the same rollout would be refused again.",
    ),
    Reason.CLOCK_SKEW: Words(
        "The node's clock or the control plane's clock is wrong.",
        "Correct the clock; GET /v2/nodes shows by how much the two differ. Then retry.",
    ),
    Reason.AGENT_ERROR: Words("The agent had an internal error.", "Read the agent's log on that node, then retry."),
    Reason.INVENTORY_MISMATCH: Words(
        "The node reported success, but its inventory shows a different state.",
        "Check the module's files and MODULE LIST on that node, then retry.",
    ),
    Reason.OBSERVE_ONLY: Words(
        "The node's agent may only observe.",
        "Run `modfleet agent install --add load` on that node, then start a rollout of that node.",
    ),
    Reason.AGENT_TOO_OLD: Words(
        "The node's agent is too old for this operation.",
        "Upgrade modfleet on that node and restart its agent, then start a rollout of that node.",
    ),
    Reason.NODE_DECOMMISSIONED: Words(
        "The node was decommissioned.", "If that was a mistake, restart its agent: the node joins again."
    ),
    Reason.NODE_UNREACHABLE: Words(
        "The node was offline when it was its turn.",
        "Start its agent. If the node failed, retry it. If it was skipped, start a rollout of it.",
    ),
    Reason.NODE_DEADLINE: Words(
        "The node did not answer in time.",
        "GET /v2/nodes shows what the node has now. Check its agent, or raise node_deadline_seconds, then retry.",
    ),
    Reason.ERROR_THRESHOLD: Words(
        "More nodes failed than max_failures accepts.",
        "Check the nodes that failed. Then resume to accept them, retry them, roll back, or abort.",
    ),
    Reason.PROGRESS_DEADLINE: Words(
        "No node succeeded for progress_deadline_seconds.",
        "Check the nodes in progress and the offline nodes. Then resume, roll back, or abort.",
    ),
    Reason.NEWER_ROLLOUT: Words("A newer rollout of the module took over.", "Follow the newer rollout."),
    Reason.MANUAL: Words("A person requested this.", "If that was a mistake, start a rollout of that node."),
}
