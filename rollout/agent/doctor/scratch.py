"""Checks of scratch servers: whether one runs here, and what the last start check has found."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rollout.agent.doctor.host import Host
from rollout.agent.doctor.outcome import Outcome, UnknownError, failed, passed, unknown, warned
from rollout.agent.node.start_checks import last_result
from rollout.agent.scratch.live import live_server
from rollout.agent.scratch.load import refuse_other_version
from rollout.agent.scratch.server import ScratchEndedError, ScratchSilentError, UnavailableError, scratch_server
from rollout.agent.scratch.start import StartResult, check_start, next_start, start_result
from rollout.agent.settings import AgentSettings
from rollout.messages import WouldStart

#: The longest time for a start of an empty server, seconds; shorter than that of a check.
START_SECONDS = 10.0

#: What a scratch server without namespaces may do.
NOT_ISOLATED = ("isolation:", "files:", "network:", "processes:")

_OFF = "Not needed: MODFLEET_SCRATCH is off."


def scratch_server_runs(host: Host) -> Outcome:
    if host.settings.scratch == "off":
        return passed(_OFF)
    if not host.info:
        return unknown("The server does not name its program.", "Allow INFO to the agent's user (`+info`).")
    try:
        live = live_server(host.settings, host.info)
        with (
            scratch_server(live.program, live.confinement, seconds=START_SECONDS, copied=live.running) as server,
            server.started() as session,
        ):
            refuse_other_version(session, live)
    except (UnavailableError, ScratchEndedError, ScratchSilentError) as error:
        words = error.in_words if isinstance(error, ScratchEndedError) else str(error)
        return warned(
            f"scratch_unavailable: {words}",
            "Correct what it names. Until then, only modules that have loaded on a node like this one are loaded here. "
            "MODFLEET_SCRATCH=warn loads all modules without a trial.",
        )
    confinement = live.confinement
    how = [
        *(["as the server's user"] if confinement.user else []),
        *(["in namespaces of its own"] if confinement.is_isolated else []),
        *(["with bubblewrap"] if confinement.bubblewrap else []),
    ]
    shown = f"A scratch server of {live.product} runs here{', ' if how else ''}{' '.join(how)}."
    has_namespaces = confinement.is_isolated or confinement.bubblewrap
    shown_differences = ("isolation:",) if has_namespaces else NOT_ISOLATED
    kept = "".join(
        f" {each[0].upper()}{each[1:]}." for each in confinement.differences if each.startswith(shown_differences)
    )
    if has_namespaces:
        return passed(f"{shown}{kept}")
    return passed(
        f"{shown} The agent cannot create namespaces.{kept} To allow them, run `modfleet agent install` again, which updates "
        "the agent's unit, and allow user namespaces in the kernel (sysctl user.max_user_namespaces, and on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns)."
    )


def start_check(host: Host) -> Outcome:
    """Show the agent's newest result. If there is none, check now."""
    if host.settings.scratch == "off":
        return passed(_OFF)
    found = last_result(host.settings) or check_start_now(replace(host.settings, scratch_seconds=START_SECONDS))
    by_hand = "modfleet agent doctor --start-check"
    at = datetime.fromtimestamp(found.checked_at or time.time(), UTC).strftime("%Y-%m-%d %H:%M UTC")
    match found.result:
        case WouldStart.YES:
            return passed(f"The server would start with all its modules (checked {at}).")
        case WouldStart.NO:
            return failed(
                f"The server would not start again (checked {at}): {found.reason}",
                f"Correct the configuration, and do not restart the server before. Then run: {by_hand}",
            )
        case WouldStart.UNKNOWN:
            return warned(
                f"It is not known if the server would start again (checked {at}): {found.reason}",
                f"Let the agent's user read what it cannot read, or run as root: {by_hand}",
            )


def check_start_now(settings: AgentSettings, program: Path | None = None) -> StartResult:
    """Return if the server would start with all its modules. `program`: on disk, instead of the server's own."""
    host = Host(replace(settings, server_binary=program or settings.server_binary))
    try:
        start = next_start(live_server(host.settings, host.info))
        return check_start(start, host.loaded or (), seconds=settings.scratch_seconds)
    except (UnknownError, UnavailableError) as error:
        return start_result(WouldStart.UNKNOWN, str(error))
