"""All checks, in the order in which they are printed, and the function that runs them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rollout.agent.doctor import (
    adoption,
    broker,
    configuration,
    control,
    execution,
    files,
    restart,
    scratch,
    server,
    server_log,
)
from rollout.agent.doctor.host import Host
from rollout.agent.doctor.outcome import Outcome, UnknownError, unknown
from rollout.agent.inspection.host_files import ROOT
from rollout.agent.settings import AgentSettings
from rollout.messages import Finding

#: The longest time for one check, seconds.
CHECK_SECONDS = 15.0
#: Limit of the texts in a `Finding`, characters.
LONGEST = 1000


@dataclass(frozen=True, slots=True)
class Check:
    """`meaning` says what the check requires; the docs show it."""

    name: str
    meaning: str
    run: Callable[[Host], Outcome]


CHECKS: tuple[Check, ...] = (
    Check("identity", "The node has an identity, and only the agent can read it.", files.identity),
    Check("broker", "The broker is reachable, and accepts the agent's user and password.", broker.broker),
    Check("broker_rights", "The broker allows each command that the agent needs on its queues.", broker.broker_rights),
    Check("control_plane", "The control plane answers, and its certificate is trusted.", control.control_plane),
    Check(
        "control_https",
        "The connection to the control plane is encrypted, or stays on this host.",
        control.control_https,
    ),
    Check(
        "control_ca", "The file `MODFLEET_CONTROL_CA` is readable, and its certificate is valid.", control.control_ca
    ),
    Check("clock", "The clock differs by less than 30 s from the control plane and the broker.", control.clock),
    Check("server_socket", "The server is reachable, and accepts the agent's user and password.", server.server_socket),
    Check("server_version", "The server is Redis 7.0 or later, or Valkey 7.2 or later.", server.server_version),
    Check("server_is_broker", "The server is not the broker.", server.server_is_broker),
    Check(
        "server_certificate", "The client certificate for the server is valid for 30 days.", files.server_certificate
    ),
    Check("enable_module_command", "The server allows `MODULE LOAD` on this connection.", server.enable_module_command),
    Check("server_rights", "The server allows each command that the agent needs to its user.", server.server_rights),
    Check("rename_command", "The server has renamed no command that the agent needs.", server.rename_command),
    Check("include_line", "The server's configuration includes the agent's file.", configuration.include_line),
    Check(
        "loadmodule_owner", "No two lines of the configuration load the same module.", configuration.loadmodule_owner
    ),
    Check("sentinel", "A failover by Sentinel does not stop the next start of the server.", configuration.sentinel),
    Check(
        "foreign_modules",
        "Modules that Modfleet did not install can be adopted, or there are none.",
        adoption.foreign_modules,
    ),
    Check("modules_dir", "The agent can write to `MODFLEET_MODULES_DIR`.", files.modules_dir),
    Check("modules_path", "The server sees the same directory of modules.", files.modules_path),
    Check("file_modes", "The server's user can read and execute the modules.", files.file_modes),
    Check("noexec", "The directory of the modules is on a mount without `noexec`.", execution.noexec),
    Check("exec_paths", "The server's systemd unit lets it execute the modules.", execution.exec_paths),
    Check("selinux", "SELinux is not active, or the modules have a type of libraries.", execution.selinux),
    Check("apparmor", "AppArmor does not confine the server, or allows the modules.", execution.apparmor),
    Check("disk_space", "The directory of the modules has 1 GB free.", files.disk_space),
    Check("journal_dir", "The agent can write to `MODFLEET_JOURNAL_DIR`.", files.journal_dir),
    Check("scratch_server", "The agent can try modules in a scratch server.", scratch.scratch_server_runs),
    Check("start_check", "The server would start again with all its modules.", scratch.start_check),
    Check("restart", "The agent can restart the server, or its settings say that it never does.", restart.restart),
    Check(
        "failover",
        "A replica can become the master before a restart, or the settings say that none does.",
        restart.failover,
    ),
    Check("server_log", "The agent can read the server's log, if the settings name it.", server_log.server_log),
)


def run_doctor(settings: AgentSettings, root: Path = ROOT) -> tuple[Finding, ...]:
    """Run all checks, and return a finding for each. Never raises. `root` is the file system of the host."""
    host = Host(settings, root)
    return tuple(_finding(check, host) for check in CHECKS)


def _finding(check: Check, host: Host) -> Finding:
    outcome = _outcome(check, host)
    return Finding(
        check=check.name, status=outcome.status, message=_storable(outcome.message), fix=_storable(outcome.fix)
    )


def _outcome(check: Check, host: Host) -> Outcome:
    results: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: results.append(_run(check, host)), name=f"doctor-{check.name}", daemon=True
    )
    thread.start()
    thread.join(CHECK_SECONDS)
    return results[0] if results else unknown(f"The check did not end within {CHECK_SECONDS:.0f} s.")


def _run(check: Check, host: Host) -> Outcome:
    try:
        return check.run(host)
    except UnknownError as error:
        return unknown(str(error), error.fix)
    except Exception as error:  # noqa: BLE001 - a check that fails must not stop the agent, or the other checks
        return unknown(f"The check failed: {type(error).__name__}: {error}".rstrip(".") + ".")


def _storable(text: str) -> str:
    """Return one line of text that a database can store, and that a terminal only shows."""
    cleaned = " ".join(text.encode("utf-8", "replace").decode().split())
    return "".join(each if each.isprintable() else "?" for each in cleaned)[:LONGEST]
