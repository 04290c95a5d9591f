"""Options that commands share are added to each."""

from contextlib import contextmanager

import pytest
import typer
from typer.testing import CliRunner

from modfleet.commands.parameters import builds


def shout(word: str = "hello") -> str:
    return word.upper()


def test_a_command_has_the_options_of_what_it_takes():
    app = typer.Typer()

    @app.command()
    @builds(said=shout)
    def say(name: str, said: str) -> None:
        typer.echo(f"{said} {name}")

    assert CliRunner().invoke(app, ["Ada", "--word", "good day"]).stdout == "GOOD DAY Ada\n"
    assert CliRunner().invoke(app, ["Ada"]).stdout == "HELLO Ada\n"


def test_what_has_to_be_closed_is_closed():
    seen = []

    @contextmanager
    def opened():
        yield "open"
        seen.append("closed")

    @builds(file=opened)
    def use(file):
        seen.append(file)

    use()
    assert seen == ["open", "closed"]


def test_one_name_for_two_things_is_a_mistake():
    with pytest.raises(TypeError, match="say has a parameter word of its own"):

        @builds(said=shout)
        def say(word: int, said: str) -> None: ...
