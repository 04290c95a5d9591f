"""A path may have any name: each command that a fix suggests has it as one word."""

import os
import re
import shlex

import pytest

from rollout.agent.control_plane.identity import write_identity
from rollout.agent.doctor import server_log
from rollout.agent.doctor.outcome import unit_word, word
from rollout.agent.inspection import access_control
from tests.integration.doctor.conftest import identity
from tests.integration.doctor.test_misconfigured import UNIT_FILE, a_parent_directory_is_private

HOSTILE = [
    "two words",
    "a;touch evil",
    "$(touch evil)",
    "`touch evil`",
    "-rf",
    "--help",
    'it\'s "so"',
    "%n$HOME&|<>*?[x]",
]
#: It has no quotes itself, so that quoted words are found without a parser.
NAME = "x;touch $(evil) `evil` %n *"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_word(name):
    (read,) = shlex.split(word(name))
    assert (read.removeprefix("./"), read.startswith("-")) == (name, False)
    assert shlex.split(f"chmod 755 {word(f'/srv/{name}')}") == ["chmod", "755", f"/srv/{name}"]
    assert [each.replace("%%", "%") for each in shlex.split(unit_word(name))] == [name]


@pytest.fixture
def evil(site):
    made = site.folder / NAME
    made.mkdir()
    site.environ["MODFLEET_MODULES_DIR"] = str(made / "modules")
    (made / "modules").mkdir()
    return made


def identity_is_readable(site, evil):
    site.environ["MODFLEET_IDENTITY_FILE"] = str(evil / "identity.json")
    write_identity(evil / "identity.json", identity("n1"))
    (evil / "identity.json").chmod(0o644)


def modules_dir_cannot_be_created(site, evil):
    (evil / "file").touch()
    site.environ["MODFLEET_MODULES_DIR"] = str(evil / "file" / "m")


def journal_dir_cannot_be_created(site, evil):
    (evil / "file").touch()
    site.environ["MODFLEET_JOURNAL_DIR"] = str(evil / "file" / "j")


def a_parent_is_private(site, evil):
    a_parent_directory_is_private(site)
    site.folder.chmod(0o755)
    evil.chmod(0o700)


def a_module_is_not_executable(site, evil):
    a_parent_directory_is_private(site)
    file = evil / "modules/base/1/base.so"
    file.parent.mkdir(parents=True)
    file.touch()
    for each in (*file.parents[:4], site.folder):
        each.chmod(0o755)
    file.chmod(0o644)


def unit_forbids_execution(site, evil):
    site.fakes[UNIT_FILE] += "NoExecPaths=/\nExecPaths=/usr/lib /lib\n"


def apparmor_confines_the_server(site, evil):
    site.fakes["/sys/module/apparmor/parameters/enabled"] = "Y"
    site.fakes["/proc/{pid}/attr/current"] = "redis (enforce)"


def selinux_confines_the_server(site, evil):
    site.fakes["/sys/fs/selinux/enforce"] = "1"


@pytest.mark.parametrize(
    ("arrange", "check"),
    [
        (identity_is_readable, "identity"),
        (modules_dir_cannot_be_created, "modules_dir"),
        (journal_dir_cannot_be_created, "journal_dir"),
        (a_parent_is_private, "file_modes"),
        (a_module_is_not_executable, "file_modes"),
        (lambda *_: None, "include_line"),
        (unit_forbids_execution, "exec_paths"),
        (apparmor_confines_the_server, "apparmor"),
        (selinux_confines_the_server, "selinux"),
    ],
)
def test_each_fix_quotes_the_path(site, evil, monkeypatch, arrange, check):
    monkeypatch.setattr(access_control, "selinux_label", lambda *_: "system_u:object_r:var_t:s0")
    arrange(site, evil)
    site.start()
    findings = site.examine()
    assert "evil" in findings[check].fix, findings[check]
    for each in findings.values():
        assert "evil" not in without_quoted_words(each.fix), each


def without_quoted_words(fix):
    return re.sub(r"'/[^']*'|\"/[^\"]*\"", "", fix)


def test_a_log_that_the_agent_may_not_read(tmp_path, monkeypatch):
    log = tmp_path / NAME / "log"
    log.parent.mkdir()
    log.touch(0o600)
    monkeypatch.setattr(os, "access", lambda path, _: path != log)
    user = server_log._user()
    assert shlex.split(server_log.missing_right(log)) == ["setfacl", "--modify", f"u:{user}:r", str(log)]


def test_a_terminal_does_not_obey_a_name(site):
    site.environ["MODFLEET_JOURNAL_DIR"] = f"{site.folder}/password/\x1b[2J\x9b"
    site.start()
    found = site.examine()["journal_dir"]
    assert (found.status, found.message.isprintable(), found.fix.isprintable()) == ("fail", True, True)
