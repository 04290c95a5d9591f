"""`modfleet pack`: make a package of a module, or check a package."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modfleet.failure import ExitCode

if TYPE_CHECKING:
    from modfleet.packing.build import Order
    from modfleet.packing.check import Report

FIELDS = "Fields of module.json (they override the manifest)"


def pack(
    module: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODULE.so",
            exists=True,
            dir_okay=False,
            help="Module to pack: a shared object.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.zip", help="Package to write. Default: NAME-VERSION-MACHINE.zip."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FILE.zip", help="Check this package, instead of making one.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            "-m",
            metavar="FILE.yaml",
            exists=True,
            dir_okay=False,
            help="YAML file with fields of module.json.",
        ),
    ] = None,
    args: Annotated[
        str | None,
        typer.Option(help='Arguments to load the module with, in the test load and on the nodes, such as "a 1 b 2".'),
    ] = None,
    run_args: Annotated[
        str | None, typer.Option(help="Arguments for the test load on this machine only. Default: those of --args.")
    ] = None,
    load: Annotated[
        bool,
        typer.Option(
            "--load/--no-load",
            help="Load the module. With --no-load, the manifest must have module_name, version, commands and min_redis_version.",
        ),
    ] = True,
    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROGRAM",
            help="Server to load the module into, such as redis-server. Repeatable. Default: the embedded Valkey.",
        ),
    ] = None,
    deps: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="File to put into deps/ of the package. Repeatable."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing package.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")] = False,
    display_name: Annotated[
        str | None, typer.Option(help="Name to show. Default: the module's name.", rich_help_panel=FIELDS)
    ] = None,
    description: Annotated[
        str | None, typer.Option(help="One sentence about what the module does.", rich_help_panel=FIELDS)
    ] = None,
    author: Annotated[str | None, typer.Option(help="Name of the author.", rich_help_panel=FIELDS)] = None,
    email: Annotated[str | None, typer.Option(help="Email address of the author.", rich_help_panel=FIELDS)] = None,
    homepage: Annotated[str | None, typer.Option(help="URL of the module's home page.", rich_help_panel=FIELDS)] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Name or SPDX identifier of the license.", rich_help_panel=FIELDS)
    ] = None,
    capability: Annotated[
        list[str] | None,
        typer.Option(help="Capability, such as types or replica_of. Repeatable.", rich_help_panel=FIELDS),
    ] = None,
    capability_name: Annotated[
        str | None,
        typer.Option(help="Name of the capabilities, for the tools of Redis Enterprise.", rich_help_panel=FIELDS),
    ] = None,
    config_command: Annotated[
        str | None, typer.Option(help="Command that configures the module at run time.", rich_help_panel=FIELDS)
    ] = None,
    dependency: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=URL[#sha256=HEX]]",
            help="Another module that must be loaded first (NAME), or a --deps file and its source (NAME=URL). Repeatable.",
            rich_help_panel=FIELDS,
        ),
    ] = None,
    operating_system: Annotated[
        list[str] | None,
        typer.Option(
            "--os",
            help="Operating system, such as rhel9 or debian12. Repeatable. Default: any.",
            rich_help_panel=FIELDS,
        ),
    ] = None,
    min_redis_version: Annotated[
        str | None,
        typer.Option(
            help="Oldest Redis version that the module works with. Default: that of the oldest server that loaded it.",
            rich_help_panel=FIELDS,
        ),
    ] = None,
    compatible_redis_version: Annotated[
        str | None,
        typer.Option(
            help="Redis version that the module is compatible with. Default: that of the oldest server that loaded it.",
            rich_help_panel=FIELDS,
        ),
    ] = None,
    min_redis_pack_version: Annotated[
        str | None,
        typer.Option(
            help="Oldest Redis Enterprise version that the module works with. Default: 5.2.", rich_help_panel=FIELDS
        ),
    ] = None,
) -> None:
    """Make a package of a module, or check one with --check.

    The command loads the module into a temporary server, and writes what the module reports to module.json. The same
    input makes the same file, byte for byte. Exit code 1: no package was made, or --check found a problem.
    """
    from modfleet.packing import require_extra

    # SIGTERM, like Ctrl-C, then ends the server and removes its files.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    fields = {
        "display_name": display_name,
        "description": description,
        "author": author,
        "email": email,
        "homepage": homepage,
        "license": license_,
        "capabilities": capability,
        "capability_name": capability_name,
        "config_command": config_command,
        "dependencies": _dependencies(dependency),
        "operating_systems": operating_system,
        "min_redis_version": min_redis_version,
        "compatible_redis_version": compatible_redis_version,
        "min_redis_pack_version": min_redis_pack_version,
        "command_line_args": args,
        "run_command_line_args": run_args,
    }
    flags = {name: value for name, value in fields.items() if value is not None}
    if (module is None) == (check is None):
        raise typer.BadParameter("Give either MODULE.so or --check FILE.zip.")
    if check is not None and (
        output is not None or manifest is not None or flags or deps or server or force or not load
    ):
        raise typer.BadParameter("--check can only be combined with --json.")
    require_extra("elftools")
    if check is not None:
        _check(check, as_json=as_json)
    elif module is not None:
        from modfleet.packing.build import Order
        from modfleet.packing.manifest import read_manifest

        order = Order(
            module=module,
            to=output,
            manifest=read_manifest(manifest) if manifest else {},
            flags=flags,
            dependencies=tuple(deps or ()),
            load=load,
            servers=tuple(server or ()),
            force=force,
        )
        _pack(order, as_json=as_json)


def _check(path: Path, *, as_json: bool) -> None:
    from modfleet.packing.check import check_package

    report = check_package(path)
    if as_json:
        _print_json(_document(report))
    elif report.problems:
        typer.echo(f"{path} has problems:")
        for problem in report.problems:
            typer.echo(f"  {problem['error_code']}: {problem['description']}")
    else:
        typer.echo(f"{path} has no problems")
        _print_summary(report)
    raise typer.Exit(ExitCode.FAILED if report.problems else ExitCode.SUCCEEDED)


def _pack(order: "Order", *, as_json: bool) -> None:
    from modfleet.packing.build import make_package

    packed = make_package(order)
    if as_json:
        servers = [
            {"server": each.server, "loaded": each.loaded is not None, "message": each.refused} for each in packed.tried
        ]
        _print_json({**_document(packed.report), "changed": packed.has_changed, "servers": servers})
        return
    typer.echo(f"packed {packed.path}" if packed.has_changed else f"{packed.path} is already this package")
    _print_summary(packed.report)
    for each in packed.tried:
        typer.echo(f"  {'server':10}{each.server}: {each.refused or 'loaded'}")


def _document(report: "Report") -> dict[str, Any]:
    shown = {"fine": not report.problems, "problems": list(report.problems), "warnings": list(report.warnings)}
    return {**shown, **report.summary}


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _print_summary(report: "Report") -> None:
    summary = report.summary
    lines = {
        "module": f"{summary['module_name']} {summary['version']} ({summary['semantic_version']})",
        "platform": f"{', '.join(summary['platforms'])}, Redis {summary['min_redis_version']} or later",
        "size": f"{summary['size']} bytes",
        "package": f"sha256 {summary['package_sha256']}",
        "content": f"sha256 {summary['content_sha256']}",
        "commands": ", ".join(summary["commands"]) or "none",
        "arguments": summary["command_line_args"],
        "needs": ", ".join(summary["dependencies"]),
    }
    for name, value in lines.items():
        if value:
            typer.echo(f"  {name:10}{value}")
    for warning in report.warnings:
        typer.echo(f"  {'note':10}{warning}")


def _dependencies(given: list[str] | None) -> dict[str, dict[str, str]] | None:
    """Return the dependencies from `NAME=URL#sha256=HEX`; the digest is written as in a link to a Python package."""
    if given is None:
        return None
    built: dict[str, dict[str, str]] = {}
    for text in given:
        name, _, link = text.partition("=")
        url, _, digest = link.partition("#sha256=")
        built[name] = {key: value for key, value in (("url", url), ("sha256", digest)) if value}
    return built
