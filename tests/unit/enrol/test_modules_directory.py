"""From where the server's unit lets it load modules."""

from pathlib import Path

import pytest

from modfleet.enrol.at_server import AtServer
from modfleet.enrol.choices import modules_directory
from modfleet.enrol.host import Host
from modfleet.enrol.layout import Layout
from modfleet.enrol.server import FoundServer, Login
from modfleet.enrol.steps import Steps
from rollout.agent.inspection.systemd import unit_settings

LAYOUT = Layout(node="n1")
EVERYTHING = frozenset({"observe", "load", "persist"})


def found(**settings):
    return FoundServer(
        url="unix:///s", login=Login(), kind="redis", version="7.0.15", unit="redis.service", unit_settings=settings
    )


def directory(server, settings=None, rights=EVERYTHING):
    return modules_directory(server, Host(Path("/")), LAYOUT, settings or {}, rights)


def debian():
    settings = unit_settings("redis-server.service")
    assert settings, "this test needs the unit of Debian's redis-server"
    return found(**settings)


def test_usually_modules_are_in_the_state_directory():
    assert directory(found()) == "/var/lib/modfleet-agent/n1/modules"


def test_debian_allows_only_libraries():
    assert debian().unit_settings["NoExecPaths"] == "/"
    assert directory(debian()) == "/usr/lib/modfleet/n1"


def test_where_nothing_is_allowed_a_drop_in_allows_it(tmp_path):
    strict = found(NoExecPaths="/", ExecPaths="/usr/bin/redis-server /usr/lib/x86_64-linux-gnu")
    assert directory(strict) == "/var/lib/modfleet-agent/n1/modules"
    said: list[str] = []
    host = type("WithUnits", (Host,), {"has_units": True})(tmp_path)
    AtServer(strict, host, Steps(said.append), rights=EVERYTHING, owner="include", yes=False).modules(directory(strict))
    drop_in = tmp_path / "etc/systemd/system/redis.service.d/modfleet.conf"
    assert drop_in.read_text().endswith("[Service]\nExecPaths=/var/lib/modfleet-agent/n1/modules\n")
    (step,) = [line for line in said if "redis.service" in line]
    assert step.endswith("(this acts at the server's next restart)")


def test_on_debian_there_is_no_drop_in(tmp_path):
    host = type("WithUnits", (Host,), {"has_units": True})(tmp_path)
    AtServer(debian(), host, Steps(print), rights=EVERYTHING, owner="include", yes=False).modules(directory(debian()))
    assert list(tmp_path.rglob("*")) == []


def test_an_agent_that_observes_gets_its_directory_with_the_right():
    assert directory(debian(), rights=frozenset({"observe"})) == "/var/lib/modfleet-agent/n1/modules"
    observing = {"MODFLEET_ACCESS": "observe", "MODFLEET_MODULES_DIR": "/var/lib/x"}
    assert directory(debian(), observing) == "/usr/lib/modfleet/n1"


@pytest.mark.parametrize("access", ["load", "restart", None])
def test_the_directory_of_loaded_modules_does_not_change(access):
    settings = {"MODFLEET_MODULES_DIR": "/srv/modules"} | ({"MODFLEET_ACCESS": access} if access else {})
    assert directory(debian(), settings) == "/srv/modules"
