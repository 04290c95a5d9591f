"""Each reason in words, and what a person can do about it next."""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.messages import Reason


@dataclass(frozen=True, slots=True)
class Words:
    """Sentences: what it means, and what can be done; empty where there is nothing to do."""

    meaning: str
    hint: str


WORDS: Mapping[Reason, Words] = {
    Reason.ALREADY_INSTALLED: Words("The node had it already.", "Nothing is to be done."),
    Reason.NOT_INSTALLED: Words("The node did not have it.", "Nothing is to be done."),
    Reason.INCOMPATIBLE_ARCH: Words(
        "There is no build for the node's platform.", "Upload a build for it, then start a rollout of that node."
    ),
    Reason.INCOMPATIBLE_OS: Words(
        "The module's builds are for other operating systems than the node's.",
        "Upload a build for it, or one that names no operating system; an agent of an older release does not say what "
        "its node runs. Then start a rollout of that node.",
    ),
    Reason.INCOMPATIBLE_REDIS_VERSION: Words(
        "The node's server is older than the module needs.", "Upgrade the server, or roll out an older module."
    ),
    Reason.MISSING_DEPENDENCY: Words(
        "A module that this one needs is not there.", "Roll that module out first, then start a rollout of that node."
    ),
    Reason.NODE_DRAINING: Words(
        "The node was draining, and got nothing new.", "Activate it, then start a rollout of that node."
    ),
    Reason.CHECKSUM_MISMATCH: Words(
        "What the node got is not what was uploaded.",
        "Look for a proxy or a cache that changes downloads; if it happens again, check the storage.",
    ),
    Reason.FETCH_FAILED: Words(
        "The node could not download the package.",
        "Check that the node reaches the control plane's public URL and that the artifact is there, then retry.",
    ),
    Reason.DISK_FULL: Words("The node's disk is full.", "Make room on it, then retry."),
    Reason.IO_ERROR: Words(
        "The node could not read or write its files.", "Check its disk and the rights on its folders, then retry."
    ),
    Reason.LOAD_FAILED: Words(
        "The server refused to load the module.",
        "Read the server's log on that node, fix the module, and upload it as a new version.",
    ),
    Reason.PROBE_FAILED: Words(
        "The module was loaded, and did not answer as its package says.",
        "Compare its commands with its module.json, fix it, and upload it as a new version.",
    ),
    Reason.MODULE_COMMAND_DISABLED: Words(
        "The server does not allow modules to be loaded while it runs.",
        "Set enable-module-command to local in its configuration and restart it, then retry.",
    ),
    Reason.MODULE_NOT_OURS: Words(
        "The server has a module of that name that was not installed by Modfleet.",
        "Unload that one, or take it out of the server's configuration, then retry.",
    ),
    Reason.UNLOAD_REFUSED: Words(
        "The server refused to unload the module.",
        "Modules that export data types stay until the server is restarted: restart it without the module, then retry.",
    ),
    Reason.SERVER_UNREACHABLE: Words(
        "The agent could not reach its server.", "Check that the server runs and the agent's settings, then retry."
    ),
    Reason.SERVER_CRASHED: Words(
        "The server ended while it loaded or unloaded the module, or while the module settled.",
        "Do not roll this version out further: read the server's log on that node, and fix the module.",
    ),
    Reason.STALE_GENERATION: Words(
        "The node knows of something newer for this module.",
        "Start a new rollout of that node: a retry in the same rollout would be refused again.",
    ),
    Reason.CLOCK_SKEW: Words(
        "The node's clock is wrong, or the control plane's is.",
        "Set the clock of the node; GET /v2/nodes shows by how much it differs. Then retry.",
    ),
    Reason.AGENT_ERROR: Words("The agent met an error of its own.", "Read the agent's log on that node, then retry."),
    Reason.INVENTORY_MISMATCH: Words(
        "The node said that it was done, and what it has says otherwise.",
        "Look at the module's files and at MODULE LIST on that node, then retry.",
    ),
    Reason.NODE_DECOMMISSIONED: Words(
        "The node has left the fleet.", "If that was a mistake, restart its agent: it joins anew."
    ),
    Reason.NODE_UNREACHABLE: Words(
        "The node was offline when it was its turn.",
        "Bring its agent back. Retry the node if it has failed; start a rollout of it if it was skipped.",
    ),
    Reason.NODE_DEADLINE: Words(
        "The node did not answer in time.",
        "See in GET /v2/nodes what it has now; check its agent, or allow a longer node_deadline_seconds, then retry.",
    ),
    Reason.ERROR_THRESHOLD: Words(
        "More nodes had failed than max_failures accepts.",
        "Look at the nodes that failed; resume to accept them, retry them, roll back, or abort.",
    ),
    Reason.PROGRESS_DEADLINE: Words(
        "No node had succeeded for as long as progress_deadline_seconds.",
        "Look at what the nodes in hand and the nodes offline are doing; then resume, roll back, or abort.",
    ),
    Reason.NEWER_ROLLOUT: Words("A newer rollout of the module has taken over.", "Follow that one."),
    Reason.MANUAL: Words("A person asked for it.", "If that was a mistake, start a rollout of that node."),
}
