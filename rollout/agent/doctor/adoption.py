"""Check that the modules which Modfleet did not install can be adopted."""

import os
from pathlib import Path

from rollout.agent.doctor.host import Host
from rollout.agent.doctor.outcome import Outcome, passed, warned
from rollout.agent.doctor.server_log import missing_right, require_the_agents_user
from rollout.agent.inspection.host_files import on_host
from rollout.agent.inspection.loaded_file import read_loaded_file
from rollout.agent.module_files.module_store import ModuleStore
from rollout.agent.node.persistence import Persistence
from rollout.agent.node.take_over import take_over
from rollout.agent.server.adoptions import Adoptions
from rollout.agent.server.observation import is_bundled
from rollout.agent.server.session import LoadedModule, Server


def foreign_modules(host: Host) -> Outcome:
    settings = host.settings
    if settings.observe:
        return passed("Not needed: the agent only observes.")
    store = ModuleStore(settings.modules_dir, settings.server_modules_dir or settings.modules_dir)
    adoptions = Adoptions(settings.journal_dir)
    adopted = {each.source for each in adoptions.all() if each.run_id == host.info.get("run_id")}
    foreign = [
        each
        for each in host.loaded or ()
        if not store.is_ours(each.path)
        and not is_bundled(each.path)
        and (each.name, each.version, each.path) not in adopted
    ]
    if not foreign:
        return passed("The server has loaded no module that Modfleet did not install, or its list may not be read.")
    require_the_agents_user(host)
    persistence = Persistence(settings, store, Server(settings, adoptions), adoptions, host.root)
    for each in foreign:
        if found := _problem(host, persistence, each):
            return found
    names = ", ".join(each.name for each in foreign)
    return passed(f"`modfleet adopt` can adopt the modules that Modfleet did not install: {names}.")


def _problem(host: Host, persistence: Persistence, module: LoadedModule) -> Outcome | None:
    start, reader = persistence.reader.read(host.info), persistence.reader
    said = f"{module.name} cannot be adopted: "
    if start.problem and reader.view and not os.access(main := on_host(reader.view, start.main), os.R_OK):
        return warned(f"{said}{start.problem}", missing_right(main))
    file = read_loaded_file(module.path, reader.pid, reader.view, reader.started, root=host.root)
    if file.problem:
        path = on_host(reader.view or host.root, module.path)
        return warned(f"{said}{file.problem}", _fix_of(path))
    if obstacle := take_over(persistence, start, module.name, module.path).obstacle:
        return warned(f"{said}{obstacle}", "docs/howto/adopt.md says what is needed.")
    return None


def _fix_of(path: Path) -> str:
    if path.exists() and not os.access(path, os.R_OK):
        return missing_right(path)
    return "Restart the server: then the file on disk is the one that it has loaded."
