"""A scratch server under what the agent's unit allows. systemd does not run here: its filter of namespaces, and its mounts over
/proc, are made by hand, and the rest of the unit is compared with what a scratch server calls."""

import json
import os
import struct
import subprocess

from rollout.agent.scratch import calls, namespaces
from rollout.agent.scratch.confinement import BARRIER
from tests.fleet import ROOT
from tests.waiting import PATIENCE

UNIT = ROOT / "deploy/systemd/modfleet-agent@.service"
USER = 64999
#: systemd.exec(5).
KINDS = {
    "user": namespaces.CLONE_NEWUSER,
    "mnt": namespaces.CLONE_NEWNS,
    "pid": namespaces.CLONE_NEWPID,
    "net": namespaces.CLONE_NEWNET,
    "ipc": namespaces.CLONE_NEWIPC,
}
ALL = 0x7E020080
CALLS = "mount mount_setattr move_mount open_tree landlock_create_ruleset landlock_add_rule landlock_restrict_self"

#: Arguments: the project, the flags of unshare(2) that are refused, the filter, and limits for the keeper, which ends with 0 if
#: it can start a program so.
PROGRAM = """
import ctypes, os, struct, sys
sys.path.append(sys.argv[1])
from rollout.agent.scratch import keeper, kernel, namespaces
kernel.call("unshare", namespaces.CLONE_NEWNS)
kernel.call("mount", b"none", b"/", None, namespaces.MS_REC | namespaces.MS_PRIVATE, None)
kernel.call("mount", b"none", b"/proc/sys", b"tmpfs", 1, None)  # ProtectKernelTunables
kernel.call("mount", b"/dev/null", b"/proc/kallsyms", None, namespaces.MS_BIND, None)
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
os.setgroups([])
os.setgid(int(sys.argv[4]))
os.setuid(int(sys.argv[4]))
kernel.prctl(4, 1)  # PR_SET_DUMPABLE: as after execve(2), its files in /proc are its own
code = bytes.fromhex(sys.argv[2])
kept = ctypes.create_string_buffer(code, len(code))
kernel.call("prctl", kernel.PR_SET_SECCOMP, 2, struct.pack("@HP", len(code) // 8, ctypes.addressof(kept)), 0, 0)
keeper.run([sys.argv[3]])
"""
EVERYTHING = {"own": "/var", "hidden": [], "shown": []}
NAMESPACES = {
    "view": {"new_user": True, "executable": {}, "hidden": [], "shown": {}},
    "barrier": {**EVERYTHING, "files": False, "calls": True, "namespaces": True},
}
BARRED = {"view": None, "barrier": {**EVERYTHING, **dict.fromkeys(BARRIER, True), "namespaces": False}}


def settings(name):
    return [line.split("=", 1)[1] for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]


def filtered(allowed):
    """unshare(2) with another flag than these is refused, as by RestrictNamespaces=."""
    number = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
    steps = [
        (calls.LOAD, 0, 0, 0),
        (calls.EQUAL, number, 0, 4),
        (calls.LOAD, 16, 0, 0),
        (calls.AND, ALL & ~allowed, 0, 0),
        (calls.EQUAL, 0, 1, 0),
        (calls.RETURN, calls.REFUSE, 0, 0),
        (calls.RETURN, calls.ALLOW, 0, 0),
    ]
    return b"".join(struct.pack("=HBBI", code, yes, no, value) for code, value, yes, no in steps)


def works(limits, allowed):
    words = ["/usr/bin/python3", "-c", PROGRAM, ROOT, filtered(allowed).hex(), json.dumps(limits), str(USER)]
    return subprocess.run(words, timeout=PATIENCE, cwd="/").returncode == 0


def test_the_unit_allows_the_namespaces_of_a_scratch_server():
    (kinds,) = settings("RestrictNamespaces")
    allowed = sum(KINDS[each] for each in kinds.split())
    assert works(NAMESPACES, allowed)
    for each in KINDS.values():
        assert not works(NAMESPACES, allowed & ~each)


def test_where_no_namespace_is_allowed_the_barrier_works():
    assert not works(NAMESPACES, 0)
    assert works(BARRED, 0)


def test_the_unit_allows_the_system_calls_of_a_scratch_server():
    assert set(CALLS.split()) <= set(" ".join(settings("SystemCallFilter")).split())
