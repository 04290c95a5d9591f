"""Write docs/reference from the code: `make docs`. `tests/unit/docs` fails when a page is not current."""

import argparse
import ast
import dataclasses
import enum
import importlib
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import django

django.setup()

import click
import httpx
import typer.main
from django.apps import apps
from django.core.management import load_command_class

from api import handlers
from api.errors import ApiError
from api.statuses import status_of
from config.environment import Environment
from eventstore import registered_types
from modfleet.cli import app as command_line
from modfleet.commands import agent, doctor
from modfleet.enrol import cli as enrol
from rollout.agent.settings import AgentSettings
from rollout.domain.node.degraded import DEGRADED
from rollout.domain.reasons import WORDS
from rollout.messages import Reason

REFERENCE = Path(__file__).parent / "reference"
ROOT = Path(__file__).parent.parent
NOTE = "*This page is generated from the code by `make docs`.*\n"


def pages() -> dict[str, Callable[[], str]]:
    return {
        "events.md": events,
        "settings.md": settings,
        "errors.md": errors,
        "reasons.md": reasons,
        "command-line.md": command_lines,
    }


# --- Events -----------------------------------------------------------------------------------------------------------


def events() -> str:
    types = {name: kind for name, kind in registered_types().items() if not kind.__module__.startswith("tests.")}
    by_stream: dict[str, list[str]] = {}
    for name, kind in types.items():
        by_stream.setdefault(stream_of(name, kind), []).append(_event(name, kind))
    parts = [
        "# Events\n",
        NOTE,
        (
            "All event types, by the stream that they are recorded in. The meaning of a name never changes: a new shape gets "
            "a new name, and old events are read in the newest shape. `GET /v2/events` and webhooks show an event's fields "
            "as `data`. Each event also has `position`, `stream`, `version`, `recorded_at` and its actor.\n"
        ),
    ]
    for stream, described in sorted(by_stream.items()):
        parts += [f"## `{stream}`\n", *described]
    parts += ["## Shapes\n", "Types that event fields use.\n", *(_shape(each) for each in _shapes(types.values()))]
    return "\n".join(parts)


def stream_of(name: str, kind: type) -> str:
    """Return the only stream in the file of the class, or else the one that begins as the event's name does."""
    module = inspect.getmodule(kind)
    source = inspect.getsource(module) if module else ""
    streams = re.findall(
        r'^(?:def \w+_stream\(.*\) -> str:\n    return f|\w+_STREAM = )"([^"]+)"$', source, re.MULTILINE
    )
    same_name = [each for each in streams if each.split(":")[0] == name.split(".", maxsplit=1)[0]]
    (found,) = same_name or streams
    return re.sub(r"{(\w+)}", lambda match: f"<{match[1].removeprefix('module_')}>", found)


def _event(name: str, kind: type) -> str:
    rows = [(f"`{each.name}`", _type(each), each.meaning) for each in fields_of(kind)]
    return "\n".join([f"### `{name}`\n", *_docstring(kind), _table(("field", "type", ""), rows)])


def _shapes(kinds: Iterable[type]) -> list[type]:
    """Return the dataclasses and enums that fields use, directly or indirectly."""
    found: dict[str, type] = {}
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        for each in [part for hint in hints.values() for part in _parts(hint)]:
            if each.__name__ not in found and (dataclasses.is_dataclass(each) or issubclass(each, enum.Enum)):
                found[each.__name__] = each
                waiting.append(each)
    return [found[name] for name in sorted(found)]


def _parts(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for inner in typing.get_args(hint):
        yield from _parts(inner)


def _shape(kind: type) -> str:
    head = [f"### {kind.__name__}\n", *_docstring(kind)]
    if issubclass(kind, enum.Enum):
        return "\n".join([*head, ", ".join(f"`{each.value}`" for each in kind) + "\n"])
    rows = [(f"`{each.name}`", _type(each), each.meaning) for each in fields_of(kind)]
    return "\n".join([*head, _table(("field", "type", ""), rows)])


# --- Dataclasses ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`default` is the default as written, empty for a required field. `meaning` is the `#:` comment above the field."""

    name: str
    annotation: str
    default: str
    meaning: str


def fields_of(kind: type) -> list[Field]:
    """Return the fields of a dataclass, those of its base classes first."""
    found: dict[str, Field] = {}
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each):
            found |= {field.name: field for field in _own_fields(each)}
    return list(found.values())


def _own_fields(kind: type) -> list[Field]:
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    (node,) = [each for each in ast.parse(source).body if isinstance(each, ast.ClassDef)]
    found = []
    for each in node.body:
        if not isinstance(each, ast.AnnAssign):
            continue
        above: list[str] = []
        for line in reversed(lines[: each.lineno - 1]):
            if not line.strip().startswith("#:"):
                break
            above.insert(0, line.strip().removeprefix("#:").strip())
        default = "" if each.value is None else ast.unparse(each.value).replace("'", '"')
        found.append(
            Field(
                name=ast.unparse(each.target),
                annotation=ast.unparse(each.annotation),
                default=default,
                meaning=" ".join(above),
            )
        )
    return found


def _type(each: Field) -> str:
    text = each.annotation.replace("'", "")
    return f"`{text}`" + (f", default `{each.default}`" if each.default else "")


def _docstring(kind: type) -> list[str]:
    own = kind.__doc__ or ""
    is_written = bool(own) and not own.startswith(f"{kind.__name__}(")
    return [inspect.cleandoc(own) + "\n"] if is_written else []


# --- Settings ---------------------------------------------------------------------------------------------------------


def settings() -> str:
    return "\n".join(
        [
            "# Settings\n",
            NOTE,
            (
                "Settings are environment variables. They are read once, at the start. A wrong value stops the process with "
                "an error that names the variable. A setting can also come from a file: set `<NAME>_FILE` to its path. Use "
                "files for secrets.\n"
            ),
            "## Control plane\n",
            (
                "For the API, the control worker, the relay and `modfleet-manage`. `NODE_NAME` is used if "
                "`MODFLEET_NODE_NAME` is not set. `modfleet up` and `modfleet-manage bootstrap` read the first admin's "
                "password from `MODFLEET_ADMIN_PASSWORD`.\n"
            ),
            _settings(Environment),
            "## Agent\n",
            "For `modfleet agent run`, next to each server.\n",
            _settings(AgentSettings),
        ]
    )


def _settings(kind: type) -> str:
    rows = [
        (f"`MODFLEET_{each.name.upper()}`", f"`{each.annotation}`", _default(each.default), each.meaning)
        for each in fields_of(kind)
    ]
    return _table(("variable", "type", "default", "meaning"), rows)


def _default(written: str) -> str:
    match written:
        case "":
            return "must be set"
        case '""' | 'field(default="", repr=False)' | "None" | "()" | "dataclasses.field(default_factory=dict)":
            return "empty"
        case "FOLDER_STORAGE":
            return "a directory"
        case _:
            return f"`{written.strip(chr(34))}`"


# --- Errors and reasons -----------------------------------------------------------------------------------------------


def errors() -> str:
    rows: dict[tuple[str, int, str], str] = {}
    for kind in _error_classes():
        rows.setdefault((kind.code, int(status_of(kind)), " ".join((kind.__doc__ or "").split())), kind.__module__)
    for status, code in handlers._FRAMEWORK_CODES.items():  # noqa: SLF001  # what the framework refuses has no class
        if all(known != (code, int(status)) for known in ((each[0], each[1]) for each in rows)):
            rows[code, int(status), f"{httpx.codes.get_reason_phrase(status)}."] = handlers.__name__
    table = [
        (f"`{code}`", str(status), meaning, f"`{module.replace('.', '/')}.py`")
        for (code, status, meaning), module in sorted(rows.items())
    ]
    return "\n".join(
        [
            "# Error codes\n",
            NOTE,
            (
                'Every error is `{"error_code": ..., "description": ...}`. Codes are stable and meant for programs. The '
                "description is for people, often says more than this page, and may change. For module objects "
                "(`/v2/modules/user-defined`) and local artifacts (`/v2/local/...`) the vendor's pages have no 409 and no 507: "
                "there, 409 becomes 406 and 507 becomes 503. [redis-enterprise.md](redis-enterprise.md) has the answers of the "
                "vendor's older routes. All other routes answer the status of this page. A local upload that the node refuses "
                "is 406 with the node's [reason](reasons.md) as its code.\n"
            ),
            _table(("code", "status", "meaning", "defined in"), table),
        ]
    )


def _error_classes() -> list[type[ApiError]]:
    for path in sorted(ROOT.glob("*/errors.py")):
        importlib.import_module(f"{path.parent.name}.errors")
    importlib.import_module("config.urls")  # and those that views define
    waiting, found = [ApiError], []
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not kind.__module__.startswith("tests."):
            found.append(kind)
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


def reasons() -> str:
    rows = [(f"`{each}`", WORDS[each].meaning, WORDS[each].hint) for each in sorted(Reason)]
    return "\n".join(
        [
            "# Reasons\n",
            NOTE,
            (
                "The field `reason` says why an operation, a rollout or a node is in its phase. "
                "[desired-state.md](desired-state.md#transient-reasons) and `retries` in [strategy.md](strategy.md#retries) say "
                "which reasons are retried automatically.\n"
            ),
            _table(("reason", "meaning", "what to do"), rows),
            "\n## Why a node is degraded\n",
            _table(
                ("reason", "meaning", "what to do"),
                [(f"`{each}`", words.meaning, words.hint) for each, words in sorted(DEGRADED.items())],
            ),
        ]
    )


# --- Command line -----------------------------------------------------------------------------------------------------


def command_lines() -> str:
    parts = ["# Command line\n", NOTE, "## modfleet\n"]
    parts += _command("modfleet", typer.main.get_command(command_line))
    parts += [
        "## modfleet-manage\n",
        (
            "Run it on a host of the control plane, with the settings of its services: "
            "[production](../howto/production.md#systemd) shows how. In a checkout, `.venv/bin/python manage.py` does the "
            "same.\n"
        ),
    ]
    for config in apps.get_app_configs():
        for path in sorted((Path(config.path) / "management/commands").glob("[a-z]*.py")):
            if ROOT in path.parents and ".venv" not in path.parts:
                parts += _management(config.name, path.stem)
    return "\n".join(parts)


def _command(path: str, command: Any) -> Iterator[str]:
    yield f"### `{path}`\n"
    if text := inspect.cleandoc(command.help or ""):
        yield text + "\n"
    rows = []
    for each in command.params:
        names = ", ".join(f"`{name}`" for name in (*each.opts, *each.secondary_opts))
        if isinstance(each, click.Argument) or each.param_type_name == "argument":
            names = f"`{(each.metavar or each.name).upper()}`"
        environment = f"`{each.envvar}`" if isinstance(each.envvar, str) else ""
        rows.append((names, _shown(each.default), getattr(each, "help", "") or "", environment))
    if rows:
        yield _table(("option", "default", "", "variable"), rows)
    if path == "modfleet agent":
        yield from _options(agent.parser())
        for made, about in ((enrol.install_parser(), enrol.INSTALL), (enrol.uninstall_parser(), enrol.UNINSTALL)):
            yield f"### `{made.prog}`\n\n{about}"
            yield from _options(made)
        yield f"### `modfleet agent doctor`\n\n{doctor.SUMMARY}\n"
        yield from _options(doctor.parser())
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        if not inner.hidden:
            yield from _command(f"{path} {name}", inner)


def _shown(default: Any) -> str:
    if default is None or callable(default) or default == () or "UNSET" in repr(default):
        return ""
    return f"`{default}`"


def _management(app: str, name: str) -> Iterator[str]:
    command = load_command_class(app, name)
    yield f"### `modfleet-manage {name}`\n"
    yield f"{command.help}\n"
    shared = set(load_command_class("django.core", "check").base_stealth_options)
    general = {"version", "verbosity", "settings", "pythonpath", "traceback", "no_color", "force_color"}
    yield from _options(command.create_parser("modfleet-manage", name), besides=general | shared | {"skip_checks"})


def _options(parser: argparse.ArgumentParser, *, besides: Collection[str] = ()) -> Iterator[str]:
    rows = [
        (", ".join(f"`{each}`" for each in option.option_strings) or f"`{option.dest}`", option.help or "")
        for option in parser._actions  # noqa: SLF001  # argparse has no public list of them
        if option.dest not in {"help", *besides}
    ]
    if rows:
        yield _table(("option", ""), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table without the columns that are empty in every row."""
    rows = list(rows)
    kept = [index for index in range(len(head)) if any(row[index] for row in rows)] or [0]
    lines = [[head[index] for index in kept], ["---"] * len(kept)]
    lines += [[" ".join(row[index].replace("|", "\\|").split()) for index in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    for name, write in pages().items():
        (REFERENCE / name).write_text(write())


if __name__ == "__main__":
    main()
