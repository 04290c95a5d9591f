"""An agent that only observes, and the rights that are added to it."""

import pytest
import redis

from rollout.agent.settings import settings_from

OWN = ("etc/modfleet", "var/lib/modfleet-agent")


@pytest.fixture
def install(agent, site, control):
    def run(*words):
        options = ["--control", control.url, "--token", control.token(), "--server", site.url, "--name", "n1"]
        return agent("install", *options, "--root", site.root, *words)

    return run


def state(site):
    """All that a client can see of the server, without its clocks and counters of connections."""
    info = {each: site.call("INFO", each) for each in ("keyspace", "modules", "cluster", "errorstats")}
    process = {name: site.call("INFO", "server")[name] for name in ("run_id", "process_id", "config_file")}
    commands = (("CONFIG", "GET", "*"), ("ACL", "LIST"), ("ACL", "LOG"), ("MODULE", "LIST"))
    return info | process | {" ".join(words): site.call(*words) for words in commands}


def others(site):
    return {name: content for name, content in site.files().items() if not name.startswith((*OWN, "etc/modfleet"))}


def test_it_changes_no_byte_and_no_state(install, site):
    before, server = others(site), state(site)
    done = install("--observe")
    assert done.code == 0
    changed = {name for name, content in others(site).items() if before.get(name) != content}
    assert changed <= {"var/lib"}  # the directory that has Modfleet's own
    assert set(before) <= set(others(site))
    assert state(site) == server
    user, _, start = done.to_copy
    assert (user.split()[:2], start.split()[0]) == (["ACL", "SETUSER"], "sh")


def test_it_may_load_nothing(install, site):
    install("--observe", "--yes")
    for words in (("MODULE", "LOAD", "/x"), ("MODULE", "UNLOAD", "x"), ("CONFIG", "SET", "save", ""), ("GET", "x")):
        assert "has no permissions" in site.call("ACL", "DRYRUN", "modfleet-agent", *words)
    assert site.as_agent("n1", "PING")
    settings = settings_from(site.settings("n1"))
    assert settings.observe
    assert "include" not in site.config.read_text()
    assert "enable-module-command" not in site.config.read_text()


def test_one_command_adds_each_right(install, agent, site):
    install("--observe", "--yes")
    loads = agent("install", "--root", site.root, "--yes", "--add", "load")
    assert (loads.code, loads.err) == (0, "")
    settings = settings_from(site.settings("n1"))
    assert (settings.access, settings.persistence) == ("load", "include")
    assert f"include {site.root}/var/lib/modfleet-agent/n1/modules/*.conf" in site.config.read_text()
    site.restart()
    with pytest.raises(redis.ResponseError, match="Error loading"):
        site.as_agent("n1", "MODULE", "LOAD", "/nonexistent")
    assert agent("install", "--root", site.root, "--yes").has("done") == []
    assert agent("install", "--root", site.root, "--yes", "--add", "restart").code == 0
    assert site.call("ACL", "DRYRUN", "modfleet-agent", "SHUTDOWN") == "OK"
    assert settings_from(site.settings("n1")).access == "restart"


def test_the_token_can_demand_it(install, site, control):
    control.answer = {"observe": True}
    install()
    assert settings_from(site.settings("n1")).observe


def test_it_takes_no_right_away(install, site):
    install()
    refused = install("--observe")
    assert refused.code == 2
    assert refused.err == (
        "n1 has the rights load already, and --observe takes none away. Run `modfleet agent uninstall n1 --root "
        f"{site.root}` first.\n"
    )
