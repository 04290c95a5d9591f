"""Why a server refuses a module: each cause on each server, with its reason, what to do, and the server's words."""

import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from modfleet.packing.write import pack
from rollout.messages import Phase, Reason
from tests.integration.agent.conftest import SERVERS, VALKEY, Built, described
from tests.waiting import wait_for

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)


@dataclass
class Workshop:
    """A folder outside of the agent's, in which modules are compiled with libraries of their own."""

    folder: Path
    built: Callable[..., Built]

    def library(self, name: str, *options: str) -> Path:
        source = self.folder / "library.c"
        source.write_text("int library_answer(void) { return 0; }")
        return self._compiled(source, self.folder / f"lib{name}.so", *options)

    def linked(self, *options: str) -> Built:
        """A module that calls a function of a library."""
        source = self.folder / "linked.c"
        source.write_text("int library_answer(void); int RedisModule_OnLoad(void) { return library_answer(); }")
        module = self._compiled(source, self.folder / "linked.so", *options)
        package = pack(module, {"module_name": "linked", "version": 1}, self.folder / "linked.zip")
        return described("linked", 1, package.read_bytes())

    def _compiled(self, source: Path, to: Path, *options: str) -> Path:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", to, source, *options], check=True)
        return to


@pytest.fixture
def scratch():
    """The live server refuses or crashes here, and not a scratch server."""
    return "off"


@pytest.fixture
def workshop(tmp_path, built):
    return Workshop(tmp_path, built)


@pytest.fixture
def site(site):
    """The server names its own log."""
    restarted(site, "--logfile", site.root / "server.log")
    return site


def restarted(site, *options, prefix=(), modules="local"):
    server = site.server
    server.kill()
    server.options, server.prefix, server.modules = (*server.options, *options), prefix, modules
    server.start()


def log_in(site, *rules):
    """Let the agent log in as a user with these rights only."""
    site.server.call("ACL", "SETUSER", "agent", "on", ">secret", *rules)
    (site.root / "password").write_text("secret")
    site.environ |= {"MODFLEET_SERVER_USER": "agent", "MODFLEET_SERVER_PASSWORD_FILE": str(site.root / "password")}
    site.restart_agent()


# --- Refused loads ----------------------------------------------------------------------------------------------------


def no_execute_permission(site, workshop):
    command = site.command(workshop.built("base", 1))
    file = site.folder(workshop.built("base", 1)) / "base.so"
    return site.run_and(command, Phase.LOADING, lambda: file.chmod(0o644))


def unreadable(site, workshop):
    """Without a mapping of users, the server has no right that the file's mode does not give, not even as root."""
    restarted(site, prefix=("unshare", "--user"))
    library = workshop.library("hidden")
    linked = workshop.linked(str(library))
    library.chmod(0)
    return site.install(linked)


def noexec(site, workshop):
    """The server sees the modules below a mount that forbids execution."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,noexec,nosuid,nodev "$0" && exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, site.root / "modules")
    restarted(site, prefix=prefix)
    return site.install(workshop.built("base", 1))


def elsewhere(site, workshop):
    site.environ["MODFLEET_SERVER_MODULES_DIR"] = "/nowhere/modules"
    site.restart_agent()
    return site.install(workshop.built("base", 1))


def missing_library(site, workshop):
    library = workshop.library("gone")
    linked = workshop.linked(f"-L{workshop.folder}", "-lgone")
    library.unlink()
    return site.install(linked)


def old_library(site, workshop):
    script = workshop.folder / "versions"
    script.write_text("NEWER_2 { global: library_answer; };")
    library = workshop.library("versioned", f"-Wl,--version-script={script}")
    linked = workshop.linked(str(library))
    script.write_text("OLDER_1 { global: library_answer; };")
    workshop.library("versioned", f"-Wl,--version-script={script}")
    return site.install(linked)


def undefined_symbol(site, workshop):
    return site.install(workshop.built("undefined", 1))


def for_valkey_only(site, workshop):
    return site.install(workshop.built("valkey_only", 1))


def no_module(site, workshop):
    source = workshop.library("nothing")
    package = pack(source, {"module_name": "nothing", "version": 1}, workshop.folder / "nothing.zip")
    return site.install(described("nothing", 1, package.read_bytes()))


def command_of_another(site, workshop):
    site.install(workshop.built("base", 1))
    return site.install(workshop.built("rival", 1), commands=("rival.ask", "BASE.ASK"))


def disabled(site, workshop):
    restarted(site, modules="no")
    return site.install(workshop.built("base", 1))


def renamed(site, workshop):
    restarted(site, "--rename-command", "MODULE", "HIDDEN")
    return site.install(workshop.built("base", 1))


def no_right_to_load(site, workshop):
    log_in(site, "+@all", "-module|load")
    return site.install(workshop.built("base", 1))


def no_right_to_list(site, workshop):
    log_in(site, "+@all", "-module|list")
    return site.install(workshop.built("base", 1))


def no_right_to_probe(site, workshop):
    log_in(site, "+@all", "-command|info")
    return site.install(workshop.built("greet"))


def own_words(site, workshop):
    return site.install(workshop.built("floor", 1))


def no_words(site, workshop):
    return site.install(workshop.built("refuses"))


# --- Refused unloads --------------------------------------------------------------------------------------------------


def removed(name):
    def remove(site, workshop):
        site.install(workshop.built(name, 1))
        return site.remove(workshop.built(name, 1))

    return remove


@contextmanager
def blocked_client(site):
    pool = redis.ConnectionPool(connection_class=redis.UnixDomainSocketConnection, path=str(site.server.socket))
    connection = pool.make_connection()
    connection.send_command("BLOCKS.WAIT")
    yield
    connection.disconnect()


def blocked_clients(site, workshop):
    site.install(workshop.built("blocks", 1))
    with blocked_client(site):
        wait_for(lambda: site.server.call("INFO", "clients")["blocked_clients"] == 1)
        return site.remove(workshop.built("blocks", 1), even_if_used=True)


def used_by_another(site, workshop):
    site.install(workshop.built("shares", 1))
    site.install(workshop.built("borrows", 1))
    return site.remove(workshop.built("shares", 1))


def named_in_acl(site, workshop):
    site.install(workshop.built("base", 1))
    site.server.call("ACL", "SETUSER", "bob", "on", "nopass", "-@all", "+base.ask")
    return site.remove(workshop.built("base", 1))


def upgraded_while_busy(site, workshop):
    site.install(workshop.built("timer", 1))
    return site.install(workshop.built("timer", 2))


#: By scenario: the reason, words of the message, words in the server's log (empty: any).
CAUSES = {
    no_execute_permission: (Reason.FILE_NOT_EXECUTABLE, "has no execute permission", "execute permissions"),
    unreadable: (Reason.FILE_NOT_READABLE, "may not read", "libhidden.so: cannot open shared object file: Permission"),
    noexec: (Reason.EXECUTION_FORBIDDEN, "Remove `noexec`", "failed to map segment from shared object"),
    elsewhere: (Reason.FILE_NOT_FOUND, "MODFLEET_SERVER_MODULES_DIR", "No such file or directory"),
    missing_library: (Reason.MISSING_LIBRARY, "has no library libgone.so", "libgone.so: cannot open"),
    old_library: (Reason.MISSING_LIBRARY, "older than the module needs (NEWER_2)", "version `NEWER_2' not found"),
    undefined_symbol: (Reason.UNDEFINED_SYMBOL, "symbol modfleet_nowhere", "undefined symbol: modfleet_nowhere"),
    no_module: (None, "refuses to load", "does not export"),
    command_of_another: (Reason.COMMAND_NAME_TAKEN, "base.ask (base)", "initialization failed"),
    disabled: (Reason.MODULE_COMMAND_DISABLED, "enable-module-command local", ""),
    renamed: (Reason.MODULE_COMMAND_DISABLED, "Remove `rename-command MODULE`", ""),
    no_right_to_load: (Reason.PERMISSION_DENIED, "may not call `module|load`", ""),
    no_right_to_list: (Reason.PERMISSION_DENIED, "may not call `module|list`", ""),
    no_right_to_probe: (Reason.PERMISSION_DENIED, "may not call `command|info`", ""),
    own_words: (Reason.LOAD_FAILED, "See the server's log", "# <floor> Floor requires redis-server 99.0"),
    no_words: (Reason.LOAD_FAILED, "See the server's log", "refuses.so initialization failed"),
    removed("timer"): (Reason.MODULE_BUSY, "Retry when its timers have fired", ""),
    blocked_clients: (Reason.MODULE_BUSY, "Retry when no client waits", ""),
    upgraded_while_busy: (Reason.MODULE_BUSY, "Retry when its timers have fired", ""),
    removed("types"): (Reason.EXPORTS_DATA_TYPES, "restart of the server", ""),
    used_by_another: (Reason.USED_BY_MODULE, "Remove the modules that use it first", ""),
    named_in_acl: (Reason.ACL_REFERENCES_MODULE, "base.ask", ""),
}


@pytest.mark.parametrize("scenario", CAUSES, ids=lambda scenario: scenario.__qualname__.partition(".")[0])
def test_each_cause(site, workshop, binary, scenario):
    reason, words, logged = CAUSES[scenario]
    if scenario is no_module:  # Redis cannot know of a module that is only for Valkey
        reason = Reason.LOAD_FAILED if binary == VALKEY else Reason.INCOMPATIBLE_SERVER
    report = scenario(site, workshop)
    assert (report.phase, report.reason) == (Phase.FAILED, reason)
    assert words in report.message
    assert "cannot read the server's log" not in report.message
    assert logged in "\n".join(report.server_log)


def test_a_module_for_valkey_only(site, workshop, binary):
    report = for_valkey_only(site, workshop)
    expected = (Phase.SUCCEEDED, None) if binary == VALKEY else (Phase.FAILED, Reason.INCOMPATIBLE_SERVER)
    assert (report.phase, report.reason) == expected


def test_a_busy_module_is_upgraded_later(site, workshop):
    upgraded_while_busy(site, workshop)
    assert site.server.loaded() == {("timer", 1)}
    assert [each.version for each in site.runner.heartbeat(hello=False).inventory.modules if each.loaded] == [1]


def test_a_rule_that_names_a_command_does_not_end_the_server(site, workshop):
    """Redis 7.0 crashes at the first ACL LIST after the unload."""
    named_in_acl(site, workshop)
    assert any("+base.ask" in rule for rule in site.server.call("ACL", "LIST"))
    assert site.server.loaded() == {("base", 1)}


def test_a_refused_upgrade_has_the_servers_words(site, workshop, repack):
    base = workshop.built("base", 1)
    site.install(base)
    report = site.install(repack(base, version=2, module=workshop.built("floor", 1)))
    assert report.reason is Reason.LOAD_FAILED
    assert "# <floor> Floor requires redis-server 99.0" in report.server_log
    assert site.server.loaded() == {("base", 1)}


def test_an_upgrade_of_a_module_whose_commands_acl_rules_name(site, workshop, binary):
    """Valkey 9.1 refuses it. Redis 7.0 does not, and its ACL LIST is in order, because the commands come back at once."""
    site.install(workshop.built("base", 1))
    site.server.call("ACL", "SETUSER", "bob", "on", "nopass", "-@all", "+base.ask")
    report = site.install(workshop.built("base", 2), commands=("base.ask",))
    if binary == VALKEY:
        assert (report.phase, report.reason) == (Phase.FAILED, Reason.ACL_REFERENCES_MODULE)
    else:
        assert report.phase is Phase.SUCCEEDED
    assert any("+base.ask" in rule for rule in site.server.call("ACL", "LIST"))


def test_an_upgrade_that_loses_such_a_command_is_refused(site, workshop):
    site.install(workshop.built("base", 1))
    site.server.call("ACL", "SETUSER", "bob", "on", "nopass", "-@all", "+base.ask")
    report = site.install(workshop.built("base", 2), commands=("base.other",))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.ACL_REFERENCES_MODULE)
    assert site.server.loaded() == {("base", 1)}


@pytest.mark.parametrize("rule", ["+@all -base.ask", "(+BASE.ASK ~x)", "-@all +base.ask|part"])
def test_each_form_of_a_rule_that_names_a_command(site, workshop, rule):
    site.install(workshop.built("base", 1))
    site.server.call("ACL", "SETUSER", "bob", "on", *_words(rule))
    report = site.remove(workshop.built("base", 1))
    assert (report.reason, site.server.loaded()) == (Reason.ACL_REFERENCES_MODULE, {("base", 1)})


def _words(rule):
    return (rule,) if rule.startswith("(") else rule.split()


def test_a_rule_of_a_category_names_no_command(site, workshop):
    site.install(workshop.built("base", 1))
    site.server.call("ACL", "SETUSER", "bob", "on", "-@all", "+@read", "~base.ask")
    assert site.remove(workshop.built("base", 1)).phase is Phase.SUCCEEDED
    assert site.server.call("ACL", "LIST")


def test_nothing_is_removed_without_the_right_to_see_the_rules(site, workshop):
    """Redis 7.0 would crash at the first ACL LIST after the unload."""
    named_without_right(site, workshop)
    report = site.remove(workshop.built("base", 1))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERMISSION_DENIED)
    assert "ACL SETUSER agent +acl|list" in report.message
    assert site.server.loaded() == {("base", 1)}
    site.server.call("ACL", "DELUSER", "bob")
    site.server.call("ACL", "SETUSER", "agent", "+acl|list")
    assert site.remove(workshop.built("base", 1)).phase is Phase.SUCCEEDED


def named_without_right(site, workshop):
    site.install(workshop.built("base", 1))
    site.server.call("ACL", "SETUSER", "bob", "on", "nopass", "-@all", "+base.ask")
    log_in(site, "+@all", "-acl|list")


@pytest.mark.parametrize(("commands", "phase"), [(("base.ask",), Phase.SUCCEEDED), (("base.other",), Phase.FAILED)])
def test_an_upgrade_without_that_right_loses_no_command(site, workshop, commands, phase):
    site.install(workshop.built("base", 1))
    log_in(site, "+@all", "-acl|list")
    report = site.install(workshop.built("base", 2), commands=commands)
    assert (report.phase, report.reason) == (phase, None if phase is Phase.SUCCEEDED else Reason.PERMISSION_DENIED)


@pytest.mark.parametrize("may_look", [True, False])
def test_an_undo_keeps_a_module_whose_commands_rules_may_name(site, workshop, may_look):
    """Its line stays too: a start needs the module as long as a rule names its command."""
    if may_look:
        log_in(site, "+@all")
    else:
        log_in(site, "+@all", "-acl|list")
    command = site.command(workshop.built("base", 1), settle_seconds=30, deadline_seconds=2)
    words = ("ACL", "SETUSER", "bob", "on", "nopass", "-@all", "+base.ask")
    report = site.run_and(command, Phase.SETTLING, lambda: site.server.call(*words))
    assert (report.phase, site.server.loaded()) == (Phase.FAILED, {("base", 1)})
    assert "base 1 stays loaded" in report.message
    assert [line for line in site.include() if "base" in line]
    assert any("+base.ask" in rule for rule in site.server.call("ACL", "LIST"))


def test_a_command_of_the_server_itself(site, workshop):
    report = site.install(workshop.built("refuses"), commands=("GET",))
    assert report.reason is Reason.COMMAND_NAME_TAKEN
    assert "get (the server itself)" in report.message
