"""What the installer chooses for a node: its rights, who owns the lines of its server, and its directory of modules."""

from modfleet.enrol.host import Host
from modfleet.enrol.join import Joined
from modfleet.enrol.layout import Layout
from modfleet.enrol.rights import LOAD, OBSERVE, OWNERS, access_of, present_rights, rights_of
from modfleet.enrol.server import FoundServer
from modfleet.enrol.wishes import Wishes
from modfleet.failure import UsageError
from rollout.agent.inspection.mounts import mount_of
from rollout.agent.inspection.systemd import forbids_execution
from rollout.agent.settings import FORMER


def rights_from_now_on(wishes: Wishes, present: frozenset[str], joined: Joined | None) -> frozenset[str]:
    """Return the rights that the node has from now on. Rights are only added."""
    observes = wishes.observe or (joined is not None and joined.enrolled.observe)
    rights = (present or rights_of(OBSERVE if observes else LOAD)) | set(wishes.add)
    return rights_of(access_of(rights))


def _present_owner(settings: dict[str, str]) -> str:
    """Return who owns the lines of the server by the node's settings. An agent of an earlier release that loaded modules
    and wrote no lines has left them to another owner."""
    wrote = settings.get(FORMER, "true").lower() in {"true", "1", "yes", "on"}
    is_left = not wrote and settings.get("MODFLEET_ACCESS", LOAD) != OBSERVE
    return settings.get("MODFLEET_PERSISTENCE", "external" if is_left else OWNERS[0])


def owner_of(wishes: Wishes, settings: dict[str, str], found: FoundServer) -> str:
    """Return who owns the lines of the server from now on. Raises: `UsageError` if a failover by Sentinel would stop its next
    start."""
    owner = wishes.persistence or _present_owner(settings)
    if owner != "include" or not found.is_rewritten:
        return owner
    if wishes.persistence:
        raise UsageError(
            "A Sentinel watches the server. At a failover it calls CONFIG REWRITE, and with --persistence include the server "
            "would then not start again. Use --persistence rewrite."
        )
    return "rewrite"


def modules_directory(
    found: FoundServer, host: Host, layout: Layout, settings: dict[str, str], rights: frozenset[str]
) -> str:
    """Return the first directory from which the server may load modules; the last resort needs a drop-in.

    The directory does not change once the agent may load modules: the server's lines name it.
    """
    usual = host.seen(layout.modules)
    if LOAD in present_rights(settings):
        return settings.get("MODFLEET_MODULES_DIR", usual)
    if LOAD not in rights:
        return usual
    return next((each for each in (usual, host.seen(layout.library)) if _is_executable(found, each)), usual)


def _is_executable(found: FoundServer, path: str) -> bool:
    mount = mount_of(path)
    options = mount.options if mount else frozenset()
    return not options & {"noexec", "ro"} and not forbids_execution(found.unit_settings, path)
