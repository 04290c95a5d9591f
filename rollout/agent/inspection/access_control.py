"""Mandatory access control: SELinux and AppArmor."""

import os
from pathlib import Path

from rollout.agent.inspection.host_files import ROOT, on_host, process_directory, read_text


def selinux_enforces(root: Path = ROOT) -> bool | None:
    """Return True if SELinux denies what its policy does not allow; None if SELinux is not active."""
    text = read_text(root / "sys/fs/selinux/enforce")
    return None if text is None else text.strip() == "1"


def selinux_label(path: str, root: Path = ROOT) -> str | None:
    """Return the SELinux context of a file, such as `system_u:object_r:lib_t:s0`."""
    try:
        return os.getxattr(on_host(root, path), "security.selinux").rstrip(b"\0").decode()
    except (OSError, UnicodeDecodeError):
        return None


def apparmor_is_active(root: Path = ROOT) -> bool | None:
    file = root / "sys/module/apparmor/parameters/enabled"
    text = read_text(file)
    return text.strip() == "Y" if text is not None else None if file.exists() else False


def security_context(pid: int, root: Path = ROOT) -> str | None:
    """Return the SELinux context of the process, or its AppArmor profile with the mode; None if it cannot be read."""
    text = read_text(process_directory(root, pid) / "attr/current")
    return text.rstrip("\0\n") if text else None
