"""`modfleet agent uninstall` keeps what the server needs."""

import os

import pytest

from modfleet.sample import SOURCE, compile_module


@pytest.fixture
def installed(agent, site, control):
    """n1, with `enable-module-command`, and its server restarted."""
    options = ["--control", control.url, "--token", control.token(), "--server", site.url, "--name", "n1"]
    assert agent("install", *options, "--root", site.root, "--yes").code == 0
    site.restart()
    return site


@pytest.fixture
def loaded(installed):
    """n1, with a module as its agent would have loaded it."""
    modules = installed.root / "var/lib/modfleet-agent/n1/modules"
    (modules / "greet/10000").mkdir(parents=True)
    path = compile_module(SOURCE, modules / "greet/10000/greet.so", defines={"GREET_VERSION": "10000"})
    path.chmod(0o755)
    installed.as_agent("n1", "MODULE", "LOAD", str(path))
    (modules / "modfleet.conf").write_text(f"# Written by Modfleet.\nloadmodule {path}\n")
    return installed


def test_it_keeps_the_lines_and_files_of_loaded_modules(agent, loaded):
    modules = loaded.root / "var/lib/modfleet-agent/n1/modules"
    config = loaded.config.read_text()
    done = agent("uninstall", "n1", "--root", loaded.root)
    assert (done.code, done.err) == (0, "")
    assert done.has("note") == [
        f"kept: the modules in {modules}",
        f"kept: {modules}/modfleet.conf, from which a start of the server loads 1 module",
    ]
    assert loaded.config.read_text() == config
    loaded.restart()
    assert loaded.call("GREET.HELLO", "Ada")
    gone = ("etc/modfleet/agents/n1.env", "var/lib/modfleet-agent/n1/identity.json")
    assert not any((loaded.root / each).exists() for each in gone)
    assert not list(loaded.root.rglob("server_password"))


def test_purge_is_refused_while_a_module_is_loaded(agent, loaded):
    before = loaded.files()
    refused = agent("uninstall", "n1", "--purge", "--root", loaded.root)
    assert refused.code == 1
    assert "loads at its next start" in refused.err
    (loaded.root / "var/lib/modfleet-agent/n1/modules/modfleet.conf").unlink()
    before = loaded.files()
    refused = agent("uninstall", "n1", "--purge", "--root", loaded.root)
    assert refused.code == 1
    assert refused.err == "--purge would delete modules that are loaded: greet. Remove them with a rollout first.\n"
    assert loaded.files() == before


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_purge_is_refused_if_the_lines_cannot_be_read(agent, installed, make):
    """The agent's user could let root wait without end."""
    make(installed.root / "var/lib/modfleet-agent/n1/modules/modfleet.conf")
    refused = agent("uninstall", "n1", "--purge", "--root", installed.root)
    assert refused.code == 1
    assert "modfleet.conf cannot be read: it is not a regular file." in refused.err


def test_purge_after_an_uninstallation_says_what_to_do_without_the_agent(agent, loaded):
    assert agent("uninstall", "n1", "--root", loaded.root).code == 0
    refused = agent("uninstall", "n1", "--purge", "--root", loaded.root)
    assert refused.code == 1
    assert "The agent is uninstalled already: run MODULE UNLOAD for each module" in refused.err


def test_purge_is_refused_while_it_is_not_known(agent, installed):
    installed.stop()
    before = installed.files()
    refused = agent("uninstall", "n1", "--purge", "--root", installed.root)
    assert (refused.code, len(refused.err.splitlines())) == (1, 1)
    assert "the server does not tell" in refused.err
    assert installed.files() == before


def test_purge_is_refused_once_the_server_is_forgotten(agent, installed):
    assert agent("uninstall", "n1", "--root", installed.root).code == 0
    refused = agent("uninstall", "n1", "--purge", "--root", installed.root)
    assert (refused.code, refused.out) == (1, "")
    assert "the settings with the server's URL are deleted" in refused.err


def test_purge_names_the_line_that_is_left(agent, installed):
    done = agent("uninstall", "n1", "--purge", "--root", installed.root)
    assert f"remove this line from {installed.config}:" in done.out
    line = f"include {installed.root}/var/lib/modfleet-agent/n1/modules/*.conf"
    assert f"    {line}\n" in done.out
    assert line in installed.config.read_text()


def test_purge_names_no_line_that_is_not_there(agent, installed):
    lines = installed.config.read_text().splitlines()
    installed.config.write_text("".join(f"{each}\n" for each in lines if not each.startswith("include")))
    assert "include" not in agent("uninstall", "n1", "--purge", "--root", installed.root).out


def test_purge_leaves_nothing_of_the_node(agent, installed):
    assert agent("uninstall", "n1", "--purge", "--root", installed.root).code == 0
    assert not [name for name in installed.files() if "n1" in name]


def test_a_second_time_there_is_no_such_node(agent, installed):
    assert agent("uninstall", "n1", "--purge", "--root", installed.root).code == 0
    again = agent("uninstall", "n1", "--root", installed.root)
    assert (again.code, again.err) == (2, "This host has no node n1.\n")
