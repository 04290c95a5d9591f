"""Every command explains itself, and one that cannot be read says where to look."""

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from modfleet.cli import app
from rollout.domain.strategy import Strategy


def run(*words, **environ):
    return CliRunner().invoke(app, list(words), env=environ, prog_name="modfleet")


def all_commands(command=None, path=()):
    command = command or typer.main.get_command(app)
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from all_commands(each, (*path, name))


@pytest.mark.parametrize("path", list(all_commands()), ids=" ".join)
def test_help(path):
    shown = run(*path, "--help")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert " ".join(("usage: modfleet", *path)) in shown.stdout.lower()


@pytest.mark.parametrize("path", [path for path in all_commands() if path], ids=" ".join)
def test_every_command_is_described(path):
    command: Any = typer.main.get_command(app)  # a group of commands, down to the last
    for name in path:
        command = command.commands[name]
    assert command.help
    assert all(each.help for each in command.params if each.name != "help")


def test_exit_codes_are_in_the_help():
    for path in ([], ["rollout", "watch"], ["rollout", "start"]):
        assert "3: The watched rollout waits for a person" in " ".join(run(*path, "--help").stdout.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nods"], "No such command 'nods'. Did you mean 'nodes'? See `modfleet --help`."),
        (
            ["nodes", "show"],
            "Missing argument 'NODE'. Usage: modfleet nodes show [OPTIONS] {NODE}. See `modfleet nodes show --help`.",
        ),
        (
            ["rollout", "start", "greet", "1.2.0"],
            (
                "Invalid value for 'VERSION': 1.2.0 is not a whole number. Write the version as in module.json: 10200. "
                "See `modfleet rollout start --help`."
            ),
        ),
        (
            ["modules", "show", "greet", "latest"],
            (
                "Invalid value for 'VERSION': latest is not a whole number. Write the version as in module.json; "
                "`modfleet modules` lists them. See `modfleet modules show --help`."
            ),
        ),
        (["--nothing-like-it"], "No such option: --nothing-like-it. See `modfleet --help`."),
    ],
)
def test_a_command_that_cannot_be_read_is_one_sentence(words, sentence):
    shown = run(*words)
    assert (shown.exit_code, shown.stdout, shown.stderr) == (2, "", f"{sentence}\n")


def test_without_a_command_it_shows_its_help():
    shown = run()
    assert shown.exit_code == 2
    assert "Usage: modfleet" in shown.stdout


def test_a_bug_is_one_sentence_too(monkeypatch):
    monkeypatch.setattr("modfleet.commands.session.Session.access", lambda _: 1 / 0)
    shown = run("nodes")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == (
        "This command has a bug: ZeroDivisionError: division by zero. Set MODFLEET_TRACEBACK=1 to see the traceback.\n"
    )


def test_the_defaults_of_a_strategy_are_in_the_help():
    command: Any = typer.main.get_command(app)  # a group of groups
    start = command.commands["rollout"].commands["start"]
    helps = {each.name: each.help for each in start.params}
    strategy = Strategy()
    defaults = {
        **{name: getattr(strategy, name) for name in ("canary", "max_parallel", "min_healthy", "max_failures")},
        **{name: getattr(strategy, name) for name in ("on_failure", "on_abort", "gate", "offline")},
        "soak": strategy.soak_seconds,
        "settle": strategy.settle_seconds,
        "failed_calls": strategy.health.failed_calls,
        "node_deadline": strategy.node_deadline_seconds,
        "progress_deadline": strategy.progress_deadline_seconds,
        "retries": strategy.retries.limit,
        "retry_backoff": strategy.retries.backoff_seconds,
        "retry_reason": ", ".join(strategy.retries.reasons),
    }
    for name, value in defaults.items():
        assert helps[name].endswith(f"Default: {value:g}." if isinstance(value, float) else f"Default: {value}."), name
