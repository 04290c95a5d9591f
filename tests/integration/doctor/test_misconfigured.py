"""A table of misconfigured hosts, with the sentence that the doctor prints for each."""

import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modfleet.sample import compile_module
from rollout.agent.control_plane.identity import write_identity
from rollout.agent.doctor import CHECKS
from rollout.agent.doctor.acl import Extra, Level, acl_line
from rollout.agent.inspection import access_control
from rollout.agent.server.sentinels import CHANNEL
from rollout.agent.settings import AgentSettings
from rollout.delivery.broker_acl import node_line
from tests.integration.agent.conftest import SERVERS, SOURCES
from tests.integration.doctor.conftest import UNIT, Site, certificate, identity, use_https
from tests.ports import free_port

UNIT_FILE = f"/usr/lib/systemd/system/{UNIT}"
MOUNT = "1 0 8:1 / / rw - ext4 x rw\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class WithCertificate(AgentSettings):
    server_certificate: Path | None = None


Arrange = Callable[[Site], object]


@dataclass(frozen=True)
class Case:
    """`say` may contain `{name}` for the names in `values`. `is_pattern`: it is a regular expression."""

    check: str
    status: str
    say: str
    arrange: Arrange
    is_pattern: bool


CASES: list[Case] = []


def case(check: str, status: str, say: str, *, is_pattern: bool = False) -> Callable[[Arrange], Arrange]:
    """Add a host to the table: the function changes a healthy one."""

    def added(arrange: Arrange) -> Arrange:
        CASES.append(Case(check, status, say, arrange, is_pattern))
        return arrange

    return added


def values(site: Site) -> dict[str, object]:
    return {
        "root": site.folder,
        "modules": site.modules,
        "server": site.environ["MODFLEET_SERVER_URL"],
        "config": site.server.config,
        "broker": site.broker.socket,
        "control": site.environ["MODFLEET_CONTROL_URL"],
        "unit": UNIT,
    }


# --- Identity and broker


@case("identity", "warn", "MODFLEET_IDENTITY_FILE is not set: the node's messages are not signed.")
def node_has_not_joined(site):
    del site.environ["MODFLEET_IDENTITY_FILE"]


@case("identity", "fail", "The identity /nonexistent cannot be read: No such file or directory.")
def identity_is_missing(site):
    site.environ["MODFLEET_IDENTITY_FILE"] = "/nonexistent"


@case("identity", "fail", "{root}/password is not an identity. Run `modfleet agent install` with a new token.")
def identity_is_another_file(site):
    site.environ["MODFLEET_IDENTITY_FILE"] = f"{site.folder}/password"


@case("identity", "fail", "The identity {root}/state/identity.json is of the node n2.")
def identity_is_of_another_node(site):
    write_identity(site.folder / "state/identity.json", identity("n2"))


@case("identity", "warn", "Other users may read the private key in {root}/state/identity.json.")
def identity_is_readable_for_others(site):
    (site.folder / "state/identity.json").chmod(0o644)


@case("broker", "unknown", "The node's identity cannot be used: see identity.")
def broker_needs_the_identity(site):
    identity_is_missing(site)


@case("broker", "fail", "The broker at 127.0.0.1:1 cannot be reached: Connection refused.")
def broker_is_down(site):
    site.environ["MODFLEET_BROKER_URL"] = "redis://127.0.0.1:1/0"


@case("broker", "fail", "The broker at /nonexistent/s cannot be reached: No such file or directory.")
def broker_socket_is_missing(site):
    site.environ["MODFLEET_BROKER_URL"] = "redis+socket:///nonexistent/s"


@case("broker", "fail", "The broker at {broker} refuses the agent's user or password.")
def broker_password_is_wrong(site):
    site.broker.acl = [node_line("n1", "other"), "user default off"]


@case("broker", "fail", "The broker at {broker} refuses the agent's user or password.")
def broker_user_is_missing(site):
    site.broker.acl = ["user default off"]


@case("broker", "fail", "The broker at {broker} refuses the agent's user or password.")
def broker_url_has_no_password(site):
    del site.environ["MODFLEET_IDENTITY_FILE"]


@case("broker", "fail", "The broker at {root}/silent cannot be reached: no answer in time.")
def broker_does_not_answer(site):
    site.environ["MODFLEET_BROKER_URL"] = f"redis+socket://{silent(site)}"


@case(
    "broker_rights",
    "fail",
    (
        "The broker refuses the agent's user: BRPOP node.n1, BRPOP cancel.n1, LLEN node.n1, SADD _kombu.binding.node.n1, "
        "HGET unacked.node.n1, HSET unacked.node.n1, HDEL unacked.node.n1, ZADD unacked_index.node.n1, "
        "ZREM unacked_index.node.n1, ZRANGE unacked_index.node.n1."
    ),
)
def broker_user_is_another_node_s(site):
    site.broker.acl = [node_line("n2", "b"), "user default off"]
    site.environ["MODFLEET_BROKER_URL"] = f"redis+socket://node.n2:b@{site.broker.socket}"
    del site.environ["MODFLEET_IDENTITY_FILE"]


@case("broker_rights", "fail", "The broker refuses the agent's user: LPUSH control, LPUSH control.beats.")
def broker_refuses_reports(site):
    site.broker.acl = [node_line("n1", "b").partition("(")[0], "user default off"]


@case("broker_rights", "fail", "The broker refuses the agent's user: TIME.")
def broker_refuses_time(site):
    site.broker.acl = [node_line("n1", "b").replace("+time ", ""), "user default off"]


@case("broker_rights", "fail", "The broker refuses the agent's user: MULTI.")
def broker_refuses_transactions(site):
    site.broker.acl = [node_line("n1", "b").replace("+multi ", ""), "user default off"]


# --- Control plane


@case("control_plane", "fail", "The control plane at http://127.0.0.1:1 cannot be reached: Connection refused.")
def control_plane_is_down(site):
    site.environ["MODFLEET_CONTROL_URL"] = "http://127.0.0.1:1"


@case("control_plane", "fail", "The control plane at {control} cannot be reached: no answer in time.")
def control_plane_does_not_answer(site):
    listener = socket.create_server(("127.0.0.1", 0))
    site.closes.append(listener)
    site.environ["MODFLEET_CONTROL_URL"] = f"http://127.0.0.1:{listener.getsockname()[1]}"


@case("control_plane", "fail", "{control}/livez answers 404 instead of 200.")
def control_url_is_another_service(site):
    site.handler.status = 404


@case("control_plane", "fail", "The control plane at {control} requires HTTPS.")
def control_plane_requires_https(site):
    site.handler.status, site.handler.location = 301, "https://127.0.0.1/livez"


@case("control_plane", "fail", "The certificate of {control} is not trusted: self-signed certificate.")
def control_ca_is_not_set(site):
    use_https(site, certificate(site.folder, days=90))


@case("control_plane", "fail", "The certificate of {control} is not trusted: self-signed certificate.")
def control_ca_is_another_one(site):
    use_https(site, certificate(site.folder, days=90))
    (site.folder / "other").mkdir()
    site.environ["MODFLEET_CONTROL_CA"] = str(certificate(site.folder / "other", days=90))


@case("control_plane", "fail", "The certificate of {control} is not trusted: certificate has expired.")
def control_certificate_has_expired(site):
    file = certificate(site.folder, days=-2)
    use_https(site, file)
    site.environ["MODFLEET_CONTROL_CA"] = str(file)


@case(
    "control_https",
    "fail",
    "MODFLEET_CONTROL_URL=http://control.invalid is not encrypted, and control.invalid is another host.",
)
def control_url_is_not_encrypted(site):
    site.environ["MODFLEET_CONTROL_URL"] = "http://control.invalid"


@case("control_ca", "fail", "MODFLEET_CONTROL_CA=/nonexistent/ca.pem cannot be read: No such file or directory.")
def control_ca_is_missing(site):
    site.environ["MODFLEET_CONTROL_CA"] = "/nonexistent/ca.pem"


@case("control_ca", "fail", "MODFLEET_CONTROL_CA={root}/password cannot be read: no certificate in PEM.")
def control_ca_is_no_certificate(site):
    site.environ["MODFLEET_CONTROL_CA"] = f"{site.folder}/password"


@case("control_ca", "fail", "The certificate in {root}/localhost--2.pem expired 2 days ago.")
def control_ca_has_expired(site):
    site.environ["MODFLEET_CONTROL_CA"] = str(certificate(site.folder, days=-2))


@case("control_ca", "warn", "The certificate in {root}/localhost-10.pem expires in 10 days.")
def control_ca_expires_soon(site):
    site.environ["MODFLEET_CONTROL_CA"] = str(certificate(site.folder, days=10))


@case("clock", "warn", r"The clock is (39|40|41) s behind the control plane\.", is_pattern=True)
def clock_is_behind(site):
    site.handler.ahead = 40


@case("clock", "fail", r"The clock is (599|600|601) s ahead of the control plane\.", is_pattern=True)
def clock_is_far_ahead(site):
    site.handler.ahead = -600


@case("clock", "unknown", "Neither the control plane nor the broker tells its time.")
def no_clock_answers(site):
    broker_is_down(site)
    control_plane_is_down(site)


# --- Server


@case("server_socket", "fail", "The server at unix:///nonexistent/s cannot be reached: No such file or directory.")
def server_socket_is_missing(site):
    site.environ["MODFLEET_SERVER_URL"] = "unix:///nonexistent/s"


@case("server_socket", "fail", "The server at redis://127.0.0.1:2 cannot be reached: Connection refused.")
def server_is_down(site):
    site.environ["MODFLEET_SERVER_URL"] = "redis://127.0.0.1:2"


@case("server_socket", "fail", "The server at {server} refuses the user agent or its password.")
def server_password_is_wrong(site):
    (site.folder / "password").write_text("wrong\n")


@case("server_socket", "fail", "The server at {server} refuses the user nobody or its password.")
def server_user_is_missing(site):
    site.environ["MODFLEET_SERVER_USER"] = "nobody"


@case("server_socket", "fail", "The server at {server} refuses the user default or its password.")
def server_password_is_not_given(site):
    site.server.acl.append("user default on >x ~* +@all")
    del site.environ["MODFLEET_SERVER_USER"], site.environ["MODFLEET_SERVER_PASSWORD_FILE"]


@case("server_socket", "fail", "The password file {root} cannot be read: Is a directory.")
def server_password_file_is_a_directory(site):
    site.environ["MODFLEET_SERVER_PASSWORD_FILE"] = str(site.folder)


@case("server_socket", "warn", "The server is still loading its data.")
def server_is_loading(site):
    old_server(site, b"-LOADING Redis is loading the dataset in memory\r\n")


@case("server_socket", "fail", "The server at unix://{root}/silent cannot be reached: no answer in time.")
def server_does_not_answer(site):
    site.environ["MODFLEET_SERVER_URL"] = f"unix://{silent(site)}"


@case("server_version", "fail", "Redis 6.2.14 is not supported.")
def server_is_too_old(site):
    old_server(site, info="redis_version:6.2.14\r\nrun_id:x\r\n")


@case("server_version", "fail", "Valkey 7.1.0 is not supported.")
def valkey_is_too_old(site):
    old_server(site, info="redis_version:7.2.4\r\nvalkey_version:7.1.0\r\nrun_id:x\r\n")


@case("server_version", "fail", "The version of the server is not known: it says `keydb 6.3.4`.")
def server_is_another_product(site):
    old_server(site, info="keydb_version:6.3.4\r\nrun_id:x\r\n", hello=("keydb", "6.3.4"))


@case("server_version", "fail", "The version of the server is not known: it says `unstable`.")
def server_is_not_released(site):
    old_server(site, info="redis_version:unstable\r\n")


@case(
    "server_is_broker",
    "fail",
    "MODFLEET_SERVER_URL is the broker: a module that crashes it would stop the whole fleet.",
)
def server_url_is_the_broker_s(site):
    site.environ["MODFLEET_SERVER_URL"] = f"unix://{site.broker.socket}"


@case(
    "server_is_broker",
    "fail",
    "MODFLEET_SERVER_URL is the broker: a module that crashes it would stop the whole fleet.",
)
def server_is_the_broker_by_another_address(site):
    site.broker.acl.append(acl_line(Level.LOAD, "agent", "p"))
    site.broker.port = free_port()
    site.environ["MODFLEET_SERVER_URL"] = f"redis://127.0.0.1:{site.broker.port}"


@case("server_is_broker", "unknown", "The broker does not answer: see broker.")
def nobody_knows_whether_the_server_is_the_broker(site):
    broker_is_down(site)


@case("server_certificate", "fail", "The client certificate {root}/localhost--3.pem expired 3 days ago.")
def client_certificate_has_expired(site):
    site.settings_class, site.more = WithCertificate, {"server_certificate": certificate(site.folder, days=-3)}


@case("server_certificate", "warn", "The client certificate {root}/localhost-5.pem expires in 5 days.")
def client_certificate_expires_soon(site):
    site.settings_class, site.more = WithCertificate, {"server_certificate": certificate(site.folder, days=5)}


@case(
    "server_certificate", "fail", "MODFLEET_SERVER_CERTIFICATE=/nonexistent cannot be read: No such file or directory."
)
def client_certificate_is_missing(site):
    site.settings_class, site.more = WithCertificate, {"server_certificate": Path("/nonexistent")}


@case("enable_module_command", "fail", "The server refuses MODULE LOAD: `enable-module-command` is `no`.")
def module_commands_are_off(site):
    site.server.lines[0] = "enable-module-command no"


@case(
    "enable_module_command",
    "fail",
    "The server refuses MODULE LOAD: `enable-module-command` is off for this connection.",
)
def module_commands_are_off_by_default(site):
    site.server.lines[0] = ""


@case(
    "enable_module_command",
    "warn",
    "The server refuses MODULE LOAD: `enable-module-command` is `no`. The agent restarts it instead.",
)
def module_commands_are_off_and_the_agent_restarts_the_server(site):
    module_commands_are_off(site)
    site.environ |= {"MODFLEET_ACCESS": "restart", "MODFLEET_RESTART": "external"}


@case("enable_module_command", "unknown", "The server answers: unknown subcommand.")
def module_commands_have_no_answer(site):
    old_server(site, module=b"-ERR unknown subcommand\r\n")


@case("enable_module_command", "unknown", "The command MODULE is renamed: see rename_command.")
def module_commands_are_renamed(site):
    module_command_is_renamed(site)


@case("enable_module_command", "unknown", "The server does not answer: see server_socket.")
def module_commands_are_not_known(site):
    server_is_down(site)


@case(
    "server_rights",
    "fail",
    "The server refuses these commands to the user agent: module|load, module|unload, multi, exec.",
)
def server_user_may_only_observe(site):
    site.server.acl = [acl_line(Level.OBSERVE, "agent", "p")]


@case("server_rights", "fail", "The server refuses these commands to the user agent: module|unload.")
def server_user_may_not_unload(site):
    site.server.acl = [acl_line(Level.LOAD, "agent", "p").replace("+module|unload ", "")]


@case("server_rights", "fail", "The server refuses these commands to the user agent: ping, info.")
def server_user_may_not_even_ping(site):
    site.server.acl = [acl_line(Level.LOAD, "agent", "p").replace(" +ping +info", "")]


@case("server_rights", "fail", "The server refuses these commands to the user agent: module|unload.")
def a_dry_run_tells_what_a_setting_hides(site):
    site.server.lines[0] = "enable-module-command no"
    site.server.acl = [acl_line(Level.LOAD, "agent", "p").replace("+module|unload ", "") + " +acl|dryrun"]


@case("server_rights", "fail", "The server refuses these commands to the user agent: multi, exec.")
def server_user_may_not_begin_transactions(site):
    site.server.acl = [acl_line(Level.LOAD, "agent", "p").replace(" +multi +exec", "")]


@case("server_rights", "fail", "The server refuses these commands to the user agent: pubsub|numsub.")
def server_user_may_not_count_sentinels(site):
    site.server.acl = [acl_line(Level.LOAD, "agent", "p").replace(" +pubsub|numsub", "")]


@case(
    "sentinel",
    "fail",
    (
        "1 Sentinel watches the server, and MODFLEET_PERSISTENCE is include. At a failover, Sentinel calls CONFIG REWRITE. "
        "Then two lines load each module, and the server does not start."
    ),
)
def a_sentinel_watches(site):
    def subscribe(_):
        subscriber = site.server.client().pubsub()
        subscriber.subscribe(CHANNEL)
        site.closes.append(subscriber)

    site.then = subscribe


@case("server_rights", "fail", "The server refuses these commands to the user agent: config|rewrite.")
def server_user_may_not_rewrite(site):
    site.environ["MODFLEET_PERSISTENCE"] = "rewrite"


@case("sentinel", "unknown", "It is not known if a Sentinel watches the server.")
def nobody_may_count_sentinels(site):
    server_user_may_not_count_sentinels(site)


@case("server_rights", "warn", "The server refuses these commands to the user agent: pubsub|numsub.")
def no_line_of_the_agent_needs_a_count_of_sentinels(site):
    site.environ["MODFLEET_PERSISTENCE"] = "rewrite"
    site.server.acl = [acl_line(Level.LOAD, "agent", "p", [Extra.REWRITE]).replace(" +pubsub|numsub", "")]


@case(
    "server_rights",
    "fail",
    r"The server refuses these commands to the user agent: cluster\|info, cluster\|nodes(, cluster\|getslotmigrations)?\.",
    is_pattern=True,
)
def server_user_may_not_read_the_cluster(site):
    site.server.lines += ["cluster-enabled yes", f"cluster-port {free_port()}"]
    site.server.acl = [acl_line(Level.LOAD, "agent", "p").replace(" +cluster|info +cluster|nodes", "")]


@case(
    "server_rights",
    "unknown",
    "These rights of the user agent could not be tested: module|load, module|unload.",
)
def server_rights_cannot_be_tested(site):
    site.server.lines[0] = "enable-module-command no"


@case("rename_command", "fail", "The server has renamed MODULE: the agent cannot load modules.")
def module_command_is_renamed(site):
    site.server.lines.append('rename-command MODULE ""')
    site.server.acl = ["user agent on >p ~* +@all"]


@case(
    "rename_command",
    "warn",
    "The server has renamed CONFIG, SHUTDOWN, ACL, FAILOVER, REPLICAOF: restarts and failovers will not be possible.",
)
def other_commands_are_renamed(site):
    names = ("CONFIG", "SHUTDOWN", "ACL", "FAILOVER", "REPLICAOF")
    site.server.lines += [f'rename-command {each} ""' for each in names]


@case("rename_command", "warn", "The server has renamed SHUTDOWN: restarts and failovers will not be possible.")
def a_renamed_command_is_in_the_file(site):
    site.server.lines.append("rename-command shutdown stop-it")
    site.server.acl = [acl_line(Level.LOAD, "agent", "p").replace(" +command|info", "")]


# --- Configuration files


@case(
    "include_line",
    "fail",
    "No line of the server's configuration includes {modules}/modfleet.conf: a restart loads no module.",
)
def include_line_is_missing(site):
    del site.server.lines[1]


@case(
    "include_line",
    "fail",
    "No line of the server's configuration includes {modules}/modfleet.conf: a restart loads no module.",
)
def include_line_is_of_another_directory(site):
    site.server.lines[1] = f"include {site.modules}/*/*.conf"


@case(
    "include_line",
    "warn",
    ("{config} has no include line for {modules}/modfleet.conf, and the options of its command line are not known."),
)
def include_line_may_be_on_the_command_line(site):
    del site.server.lines[1]
    site.fakes["/proc/{pid}/cgroup"] = "0::/user.slice\n"


@case(
    "include_line",
    "unknown",
    (
        "No include line for {modules}/modfleet.conf was found, but {root}/secret.conf cannot be read: "
        "No such file or directory."
    ),
)
def an_include_cannot_be_read(site):
    (site.folder / "secret.conf").touch()
    site.server.lines[1] = f"include {site.folder}/secret.conf"
    site.then = lambda _: (site.folder / "secret.conf").unlink()


@case("include_line", "unknown", "The configuration file {config} cannot be read: No such file or directory.")
def the_configuration_cannot_be_read(site):
    site.then = lambda _: site.server.config.unlink()


@case(
    "loadmodule_owner",
    "fail",
    r"Two lines load the module base: {modules}/modfleet\.conf:1 and {config}:\d+\. The server will not start again\.",
    is_pattern=True,
)
def configuration_was_rewritten(site):
    """CONFIG REWRITE copies each loaded module into the main file. Sentinel calls it at each failover."""
    module = site.modules / "base/1/base.so"
    module.parent.mkdir(parents=True)
    compile_module(SOURCES / "base.c", module, defines={"VERSION": "1"})
    module.chmod(0o755)

    def load_and_rewrite(_):
        (site.modules / "modfleet.conf").write_text(f"loadmodule {module}\n")
        with site.server.client() as client:
            client.execute_command("MODULE", "LOAD", str(module))
            client.config_rewrite()

    site.then = load_and_rewrite


@case(
    "start_check",
    "fail",
    (
        r"The server would not start again \(checked [-0-9]+ [0-9:]+ UTC\): {modules}/modfleet\.conf:1 loads /gone/base\.so, "
        r"which does not exist\."
    ),
    is_pattern=True,
)
def a_line_names_a_missing_file(site):
    site.then = lambda _: (site.modules / "modfleet.conf").write_text("loadmodule /gone/base.so\n")


@case(
    "scratch_server",
    "warn",
    "scratch_unavailable: The server's program /nonexistent cannot be executed here.",
)
def no_program_for_scratch_servers(site):
    site.environ["MODFLEET_SERVER_BINARY"] = "/nonexistent"


@case(
    "loadmodule_owner",
    "fail",
    (
        "Two lines load the module {root}/base.so: {modules}/modfleet.conf:1 and the command line. "
        "The server will not start again."
    ),
)
def a_module_is_also_on_the_command_line(site):
    (site.folder / "base.so").touch()
    site.fakes[UNIT_FILE] = (
        f"[Service]\nExecStart=/usr/bin/redis-server {site.server.config} --loadmodule {site.folder}/base.so\n"
    )
    site.then = lambda _: (site.modules / "modfleet.conf").write_text(f"loadmodule {site.folder}/base.so\n")


@case(
    "loadmodule_owner",
    "fail",
    (
        "Two lines load the module {root}/base.so: {modules}/modfleet.conf:1 and {modules}/modfleet.conf:2. "
        "The server will not start again."
    ),
)
def two_names_of_one_file(site):
    (site.folder / "base.so").touch()
    (site.folder / "link.so").symlink_to("base.so")
    lines = f"loadmodule {site.folder}/base.so\nLOADMODULE '{site.folder}/link.so'\n"
    site.then = lambda _: (site.modules / "modfleet.conf").write_text(lines)


@case(
    "loadmodule_owner",
    "warn",
    (
        "Two lines load a file named base: {modules}/modfleet.conf:1 and {modules}/modfleet.conf:2. If it is the same "
        "module, the server will not start again."
    ),
)
def two_files_of_one_name(site):
    lines = f"loadmodule {site.modules}/base/1/base.so\nloadmodule /opt/base.so\n"
    site.then = lambda _: (site.modules / "modfleet.conf").write_text(lines)


# --- Files


@case("modules_dir", "fail", "The agent cannot write to MODFLEET_MODULES_DIR={root}/password: Not a directory.")
def modules_dir_is_a_file(site):
    site.environ["MODFLEET_MODULES_DIR"] = f"{site.folder}/password"


@case("modules_dir", "fail", "The agent cannot write to MODFLEET_MODULES_DIR=/usr/bin/env/m: Not a directory.")
def modules_dir_in_usr_is_not_writable(site):
    site.environ["MODFLEET_MODULES_DIR"] = "/usr/bin/env/m"


@case("journal_dir", "fail", "The agent cannot write to MODFLEET_JOURNAL_DIR={root}/password/j: Not a directory.")
def journal_dir_cannot_be_created(site):
    site.environ["MODFLEET_JOURNAL_DIR"] = f"{site.folder}/password/j"


@case("server_log", "warn", "The server's log /nonexistent/log cannot be read: No such file or directory.")
def log_is_missing(site):
    site.environ["MODFLEET_SERVER_LOG"] = "/nonexistent/log"


@case("server_log", "warn", "The server's log {modules} is not a regular file.")
def log_is_a_directory(site):
    site.environ["MODFLEET_SERVER_LOG"] = str(site.modules)


@case("modules_path", "fail", "The server sees another directory in /srv/modules than the agent in {modules}.")
def server_modules_dir_is_wrong(site):
    site.environ["MODFLEET_SERVER_MODULES_DIR"] = "/srv/modules"


@case("modules_path", "fail", "The server sees another directory in {modules} than the agent in {modules}.")
def server_has_a_private_tmp(site):
    site.fakes["/proc/self/mountinfo"] = MOUNT
    site.fakes["/proc/{pid}/mountinfo"] = MOUNT + f"2 1 8:1 /private {site.folder} rw - ext4 x rw\n"


@case("modules_path", "unknown", "The server does not answer: see server_socket.")
def modules_path_is_not_known(site):
    server_is_down(site)


@case("file_modes", "fail", "The server's user (uid 104) cannot enter {root}.")
def a_parent_directory_is_private(site):
    site.fakes["/proc/{pid}/status"] = "Uid:\t104\t104\t104\t104\nGid:\t105\t105\t105\t105\nGroups:\t105 \n"


@case("file_modes", "fail", "The server's user (uid 104) cannot read and execute {modules}/base/1/base.so.")
def a_module_is_not_executable(site):
    a_parent_directory_is_private(site)
    site.folder.chmod(0o755)
    (site.modules / "base/1").mkdir(parents=True)
    (site.modules / "base").chmod(0o755)
    (site.modules / "base/1").chmod(0o755)
    (site.modules / "base/1/base.so").touch()
    (site.modules / "base/1/base.so").chmod(0o644)


@case("noexec", "fail", "{modules} is on {root}, which is mounted with noexec.")
def modules_are_on_a_noexec_mount(site):
    site.fakes["/proc/self/mountinfo"] = MOUNT + f"2 1 8:2 / {site.folder} rw,noexec - ext4 x rw\n"


@case("exec_paths", "fail", "The unit {unit} forbids the server to execute files in {modules}.")
def unit_forbids_execution(site):
    site.fakes[UNIT_FILE] += "NoExecPaths=/\nExecPaths=/usr/lib /lib\n"


@case("exec_paths", "fail", "The server's running process may not execute files in {modules}.")
def unit_was_changed_after_the_start(site):
    site.fakes[UNIT_FILE] += f"NoExecPaths=/\nExecPaths={site.modules}\n"
    site.fakes["/proc/{pid}/mountinfo"] = "1 0 8:1 / / rw,noexec - ext4 x rw\n"


@case("exec_paths", "fail", "The server's running process may not execute files in {modules}.")
def container_mounts_the_volume_with_noexec(site):
    site.fakes["/proc/{pid}/cgroup"] = "0::/docker/abc\n"
    site.fakes["/proc/{pid}/mountinfo"] = MOUNT + f"2 1 8:2 / {site.modules} rw,noexec - ext4 x rw\n"


@case("exec_paths", "unknown", "The mounts of the server's process cannot be read.")
def mounts_cannot_be_read(site):
    site.fakes["/proc/{pid}/mountinfo"] = ""


@case("exec_paths", "unknown", "The settings of the unit gone.service cannot be read.")
def unit_cannot_be_read(site):
    site.fakes["/proc/{pid}/cgroup"] = "0::/system.slice/gone.service\n"


@case(
    "apparmor",
    "warn",
    ("The AppArmor profile /usr/bin/redis-server confines the server, and no file in /etc/apparmor.d names {modules}."),
)
def apparmor_confines_the_server(site):
    site.fakes |= {
        "/sys/module/apparmor/parameters/enabled": "Y\n",
        "/proc/{pid}/attr/current": "/usr/bin/redis-server (enforce)\n",
        "/etc/apparmor.d/usr.bin.redis-server": f"profile x {{\n  {site.modules}/** r,\n}}\n",
    }


# --- The table


def silent(site: Site) -> Path:
    """Return a socket that accepts connections and never answers."""
    path = site.folder / "silent"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    site.closes.append(listener)
    return path


def old_server(
    site: Site,
    ping: bytes = b"+PONG\r\n",
    *,
    info: str = "redis_version:7.0.0\r\n",
    hello: tuple[str, str] = ("redis", "x"),
    module: bytes = b"-ERR unknown command\r\n",
) -> None:
    """Serve the few answers of a server that no package has: an old one, another product, or one that is loading."""
    path = site.folder / "old"
    words = ["server", hello[0], "version", hello[1], "proto", "2", "id", "1"]
    bulk = [f"${len(each)}\r\n{each}\r\n".encode() for each in words]
    answers = {
        b"PING": ping,
        b"AUTH": b"+OK\r\n",
        b"MODULE": module,
        b"INFO": f"${len(info)}\r\n{info}\r\n".encode(),
        b"HELLO": f"*{len(bulk)}\r\n".encode() + b"".join(bulk),
    }
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def talk(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while head := lines.readline():
                sent = [(lines.readline(), lines.readline())[1].strip() for _ in range(int(head[1:]))]
                connection.sendall(answers.get(sent[0].upper(), b"-ERR unknown command\r\n"))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    site.environ["MODFLEET_SERVER_URL"] = f"unix://{path}"
    site.closes.append(listener)


@case("restart", "warn", "{unit} has Restart=no, so systemd would not start the server again after SHUTDOWN.")
def server_stays_down(site):
    site.environ["MODFLEET_ACCESS"] = "restart"


@case(
    "restart",
    "warn",
    "{unit} has TimeoutStartSec=0.001, but the server may need 1 s for .* of data: .*",
    is_pattern=True,
)
def systemd_would_kill_a_slow_start(site):
    server_stays_down(site)
    site.fakes[UNIT_FILE] += "Restart=always\nTimeoutStartSec=1ms\n"


@case("restart", "warn", "The agent may not restart the server.")
def agent_lacks_the_level(site):
    site.environ["MODFLEET_RESTART"] = "shutdown"


BOTH = (
    "server_socket",
    "server_version",
    "server_is_broker",
    "enable_module_command",
    "server_rights",
    "rename_command",
)


def hosts() -> Iterator[Any]:
    """Each case, with both servers if the line is about the server."""
    for index, each in enumerate(CASES):
        for server in SERVERS if each.check in BOTH else SERVERS[index % 2 : index % 2 + 1]:
            yield pytest.param(each, server, id=f"{each.arrange.__name__}-{server.name}")


@pytest.mark.parametrize(("host", "binary"), list(hosts()))
def test_the_doctor_names_the_problem_and_the_fix(host, binary, site):
    host.arrange(site)
    site.start()
    finding = site.examine()[host.check]
    expected = host.say
    for name, value in values(site).items():
        expected = expected.replace(f"{{{name}}}", str(value))
    matches = re.fullmatch(expected, finding.message) if host.is_pattern else expected == finding.message
    assert matches, finding.message
    assert finding.status == host.status
    assert finding.fix or host.status == "unknown"


def test_each_line_fails_or_warns_in_the_table():
    assert len(CASES) >= 40
    seen = {each.check for each in CASES if each.status in {"fail", "warn"}}
    seen |= {"disk_space", "selinux", "foreign_modules", "failover"}  # in tests of their own
    assert seen == {each.name for each in CHECKS}


@pytest.mark.parametrize(
    ("free", "status", "say"),
    [
        (900_000_000, "warn", "{modules} has 0.9 GB free."),
        (50_000_000, "fail", "{modules} has 50 MB free; a module needs up to 100 MB."),
    ],
)
def test_disk_space(site, monkeypatch, free, status, say):
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    finding = site.examine_offline()["disk_space"]
    assert (finding.status, finding.message) == (status, say.format(modules=site.modules))


@pytest.mark.parametrize(
    ("enforces", "label", "status", "say"),
    [
        ("1", "system_u:object_r:lib_t:s0", "pass", "{modules} has the SELinux type lib_t."),
        (
            "1",
            "system_u:object_r:var_lib_t:s0",
            "warn",
            "{modules} has the SELinux type var_lib_t: a confined server may not execute it.",
        ),
        (
            "0",
            "u:r:tmp_t",
            "warn",
            "{modules} has the SELinux type tmp_t: a confined server may not execute it once SELinux enforces its policy.",
        ),
        ("1", None, "unknown", "The SELinux label of {modules} cannot be read."),
    ],
)
def test_selinux(site, monkeypatch, enforces, label, status, say):
    site.fakes["/sys/fs/selinux/enforce"] = enforces
    monkeypatch.setattr(access_control, "selinux_label", lambda *_: label)
    finding = site.examine_offline()["selinux"]
    assert (finding.status, finding.message) == (status, say.format(modules=site.modules))


@pytest.mark.parametrize(
    ("context", "status"),
    [("system_u:system_r:unconfined_service_t:s0", "pass"), ("system_u:system_r:redis_t:s0", "warn"), ("", "warn")],
)
def test_selinux_may_not_confine_the_server(site, monkeypatch, context, status):
    site.fakes |= {"/sys/fs/selinux/enforce": "1", "/proc/{pid}/attr/current": context}
    monkeypatch.setattr(access_control, "selinux_label", lambda *_: "system_u:object_r:var_lib_t:s0")
    site.start()
    assert site.examine()["selinux"].status == status


@pytest.mark.parametrize(
    ("profile", "rule", "status"),
    [
        ("unconfined", "", "pass"),
        ("", "", "unknown"),
        ("redis (complain)", "", "pass"),
        ("redis (enforce)", "{modules}/** mr,", "pass"),
        ("redis (enforce)", "{modules}/** r,", "warn"),
    ],
)
def test_apparmor(site, profile, rule, status):
    site.fakes |= {
        "/sys/module/apparmor/parameters/enabled": "Y",
        "/proc/{pid}/attr/current": profile,
        "/etc/apparmor.d/local/redis": f"  {rule.format(modules=site.modules)}\n",
    }
    site.start()
    assert site.examine()["apparmor"].status == status


def test_a_host_without_journalctl(site, monkeypatch):
    site.environ["MODFLEET_SERVER_UNIT"] = UNIT
    monkeypatch.setenv("PATH", "/nonexistent")
    finding = site.examine_offline()["server_log"]
    assert (finding.status, finding.message) == (
        "warn",
        f"The agent cannot read the journal of {UNIT}: there is no journalctl.",
    )


@pytest.mark.parametrize("binary", ["/usr/bin/redis-server"])
def test_a_certificate_of_the_server_that_is_not_trusted(site):
    file, port = certificate(site.folder, days=90), free_port()
    site.server.lines += [f"tls-port {port}", f"tls-cert-file {file}", f"tls-key-file {file}", "tls-auth-clients no"]
    site.environ["MODFLEET_SERVER_URL"] = f"rediss://localhost:{port}"
    site.start()
    finding = site.examine()["server_socket"]
    assert finding.fix == "Set MODFLEET_SERVER_CA to the PEM file of the authority that signed it."
    assert (finding.status, finding.message) == (
        "fail",
        (
            f"The server at rediss://localhost:{port} cannot be reached: its certificate is not trusted: "
            "self-signed certificate."
        ),
    )


@pytest.mark.parametrize("binary", ["/usr/bin/redis-server"])
def test_a_certificate_of_the_broker_that_is_not_trusted(site):
    file, port = certificate(site.folder, days=90), free_port()
    site.broker.binary = Path("/usr/bin/redis-server")
    site.broker.lines += [f"tls-port {port}", f"tls-cert-file {file}", f"tls-key-file {file}", "tls-auth-clients no"]
    site.environ["MODFLEET_BROKER_URL"] = f"rediss://localhost:{port}?ssl_cert_reqs=required"
    site.start()
    finding = site.examine()["broker"]
    assert finding.fix == "Set MODFLEET_BROKER_CA to the PEM file of the authority that signed it."
    assert (finding.status, finding.message) == (
        "fail",
        (f"The broker at localhost:{port} cannot be reached: its certificate is not trusted: self-signed certificate."),
    )
