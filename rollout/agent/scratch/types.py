"""Asks a scratch server if modules have a data type. No command of a server says whose type it is."""

from collections.abc import Sequence
from contextlib import suppress

from rollout.agent.failure import AgentError
from rollout.agent.scratch.live import LiveServer
from rollout.agent.scratch.load import load_others, refuse_other_version
from rollout.agent.scratch.server import ScratchEndedError, scratch_server
from rollout.agent.server.session import LoadedModule, RefusedError

#: Of the name of a type, 6 bits each.
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LENGTH = 9
#: As in DUMP: the value of a module, a length of 64 bits, the end of the value, a version that all servers read.
_MODULE, _LONG, _END, _VERSION = b"\x07", b"\x81", b"\x00", (9).to_bytes(2, "little")
#: The polynomial of the checksum, reflected.
_JONES = 0x95AC9329AC4BC9B5


def lack_type(live: LiveServer, modules: Sequence[LoadedModule], name: str, *, seconds: float) -> bool | None:
    """Return True if none of the modules adds the type `name`, False if one does, None if that is not known.

    They have their paths as the agent sees them. No other one is loaded, and the server gets a value of the type without a content:
    only one that does not know the type logs that. It takes `seconds` at most.
    """
    confinement = live.confinement.showing([each.path for each in modules])
    if len(name) != _LENGTH or not set(name) <= set(_LETTERS):
        return None
    if not confinement.is_isolated and any(confinement.forbids(each.path) for each in modules):
        return None
    is_asked = False
    try:
        with (
            scratch_server(live.program, confinement, seconds=seconds, copied=live.running) as server,
            server.started(["loglevel verbose"]) as session,
        ):
            refuse_other_version(session, live)
            if len(load_others(session, modules)) < len(modules):
                return None
            server.mark_log()
            is_asked = True
            with suppress(RefusedError):
                session.call("RESTORE", "key", "0", _empty_value(name))
            return any(f"no matching module type '{name}'" in line for line in server.log())
    except ScratchEndedError:
        return False if is_asked else None  # a module has read the value
    except AgentError:
        return None


def _empty_value(name: str) -> bytes:
    number = 0
    for each in name:
        number = number << 6 | _LETTERS.index(each)
    value = _MODULE + _LONG + (number << 10).to_bytes(8, "big") + _END + _VERSION
    return value + _checksum(value).to_bytes(8, "little")


def _checksum(value: bytes) -> int:
    found = 0
    for each in value:
        found ^= each
        for _ in range(8):
            found = (found >> 1) ^ (_JONES if found & 1 else 0)
    return found
