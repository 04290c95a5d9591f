"""Checks of what may keep the server from executing a module: mounts, its unit, SELinux, AppArmor."""

import os
import re

from rollout.agent.doctor.host import Host
from rollout.agent.doctor.outcome import Outcome, UnknownError, failed, passed, unit_word, unknown, warned, word
from rollout.agent.inspection import access_control
from rollout.agent.inspection.host_files import on_host
from rollout.agent.inspection.mounts import mount_of
from rollout.agent.inspection.systemd import forbids_execution

#: SELinux types of files that confined servers may execute.
LIBRARIES = ("lib_t", "textrel_shlib_t", "bin_t")


def noexec(host: Host) -> Outcome:
    directory = os.path.realpath(host.settings.modules_dir)
    mount = mount_of(directory, root=host.root)
    if mount is None:
        return unknown("The mounts of this host cannot be read.")
    if "noexec" in mount.options:
        return failed(
            f"{directory} is on {mount.point}, which is mounted with noexec.",
            f"Choose another MODFLEET_MODULES_DIR, or mount {mount.point} with exec.",
        )
    return passed(f"{mount.point} allows execution.")


def exec_paths(host: Host) -> Outcome:
    """A unit that forbids execution does so with mounts that only the server's process sees."""
    directory = host.server_modules_dir
    seen = mount_of(directory, host.process.pid, host.root)
    if seen is None:
        return unknown("The mounts of the server's process cannot be read.", "Run the doctor as root.")
    unit = host.unit
    if unit and forbids_execution(unit[1], directory):
        return failed(
            f"The unit {unit[0]} forbids the server to execute files in {directory}.",
            f"Write `[Service]` and `ExecPaths={unit_word(directory)}` to /etc/systemd/system/{unit[0]}.d/modfleet.conf, run "
            "`systemctl daemon-reload`, and restart the server.",
        )
    if "noexec" in seen.options:
        return failed(
            f"The server's running process may not execute files in {directory}.",
            "Restart the server: its unit was changed after its start." if unit else "Mount the volume with exec.",
        )
    if unit is None:
        return passed("The server is not a systemd service, and its mounts allow execution.")
    return passed(f"The unit {unit[0]} lets the server execute files in {directory}.")


def selinux(host: Host) -> Outcome:
    enforces = access_control.selinux_enforces(host.root)
    if enforces is None:
        return passed("SELinux is not active.")
    if "unconfined" in (_domain(host) or ""):
        return passed("SELinux does not confine the server.")
    directory = os.path.realpath(host.settings.modules_dir)
    label = access_control.selinux_label(directory, host.root)
    if label is None:
        return unknown(f"The SELinux label of {directory} cannot be read.")
    kind = label.split(":")[2] if label.count(":") >= 2 else label
    if kind in LIBRARIES:
        return passed(f"{directory} has the SELinux type {kind}.")
    return warned(
        f"{directory} has the SELinux type {kind}: a confined server may not execute it"
        + ("." if enforces else " once SELinux enforces its policy."),
        f"semanage fcontext -a -t lib_t {word(re.escape(directory) + '(/.*)?')} && restorecon -R {word(directory)}",
    )


def apparmor(host: Host) -> Outcome:
    active = access_control.apparmor_is_active(host.root)
    if active is False:
        return passed("AppArmor is not active.")
    profile = access_control.security_context(host.process.pid, host.root) if active else None
    if profile is None:
        return unknown("The AppArmor profile of the server cannot be read.", "Run the doctor as root.")
    if not profile.endswith("(enforce)"):
        return passed(f"AppArmor does not confine the server: {profile}.")
    directory, name = host.server_modules_dir, profile.removesuffix(" (enforce)")
    if _allows(host, directory):
        return passed(f"A file in /etc/apparmor.d allows {directory}.")
    return warned(
        f"The AppArmor profile {name} confines the server, and no file in /etc/apparmor.d names {directory}.",
        f"Add `{_in_profile(directory)} mr,` to the profile's file in /etc/apparmor.d/local, and reload the profile.",
    )


def _in_profile(directory: str) -> str:
    """Return all files below the directory as AppArmor's profiles name them."""
    special = re.sub(r'(["\\*?\[\]{}^])', r"\\\1", directory)
    return f"{special}/**" if special == word(directory) else f'"{special}/**"'


def _domain(host: Host) -> str | None:
    """Return the SELinux type of the server's process, such as `redis_t`, if it is known."""
    try:
        context = access_control.security_context(host.process.pid, host.root) or ""
    except UnknownError:
        return None
    return context.split(":")[2] if context.count(":") >= 2 else None


def _allows(host: Host, directory: str) -> bool:
    """Return True if a profile has a rule for this directory that allows to map files for execution."""
    for path in on_host(host.root, "/etc/apparmor.d").rglob("*"):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if re.search(rf"^\s*{re.escape(directory)}/\S*\s+\w*m\w*,", text, re.MULTILINE):
            return True
    return False
