"""`modfleet pack`: makes a package of a module, or says what is wrong with one."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modfleet.failure import ExitCode

if TYPE_CHECKING:
    from modfleet.packing.build import Order
    from modfleet.packing.check import Report

SAYS = "What module.json says (over the manifest)"


def pack(
    module: Annotated[
        Path | None,
        typer.Argument(metavar="MODULE.so", exists=True, dir_okay=False, help="The module.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.zip", help="The package. Default: NAME-VERSION-MACHINE.zip."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FILE.zip", help="Say what is wrong with this package, and make none.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest", "-m", metavar="FILE.yaml", exists=True, dir_okay=False, help="Fields of module.json."
        ),
    ] = None,
    args: Annotated[
        str | None, typer.Option(help='Arguments that the module is loaded with, here and on the nodes: "a 1 b 2".')
    ] = None,
    run_args: Annotated[
        str | None, typer.Option(help="Arguments to load it with here, where they are not those of the nodes.")
    ] = None,
    load: Annotated[
        bool,
        typer.Option("--load/--no-load", help="Without: read only the file; the manifest has name, version, commands."),
    ] = True,
    server: Annotated[
        str,
        typer.Option(metavar="PROGRAM", help="Load it into this, such as redis-server. Default: the embedded Valkey."),
    ] = "",
    deps: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="A file for deps/; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another package that lies there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")] = False,
    display_name: Annotated[str | None, typer.Option(help="Default: the module's name.", rich_help_panel=SAYS)] = None,
    description: Annotated[
        str | None, typer.Option(help="What the module does, in a sentence.", rich_help_panel=SAYS)
    ] = None,
    author: Annotated[str | None, typer.Option(help="Who wrote it.", rich_help_panel=SAYS)] = None,
    email: Annotated[str | None, typer.Option(help="Where its author is reached.", rich_help_panel=SAYS)] = None,
    homepage: Annotated[str | None, typer.Option(help="A URL.", rich_help_panel=SAYS)] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Its name or SPDX identifier.", rich_help_panel=SAYS)
    ] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="Such as types or replica_of; repeatable.", rich_help_panel=SAYS)
    ] = None,
    capability_name: Annotated[
        str | None, typer.Option(help="What vendor tools call what it can do.", rich_help_panel=SAYS)
    ] = None,
    config_command: Annotated[
        str | None, typer.Option(help="The command by which it is configured at run time.", rich_help_panel=SAYS)
    ] = None,
    dependency: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=URL[#sha256=HEX]]",
            help="Name of a module that has to be there first; or where a file that --deps packs comes from. Repeatable.",
            rich_help_panel=SAYS,
        ),
    ] = None,
    operating_system: Annotated[
        list[str] | None,
        typer.Option("--os", help="Such as rhel9 or debian12; repeatable. Default: any.", rich_help_panel=SAYS),
    ] = None,
    min_redis_version: Annotated[str | None, typer.Option(help="Default: 7.0.", rich_help_panel=SAYS)] = None,
    compatible_redis_version: Annotated[
        str | None, typer.Option(help="Default: that of the server it was loaded into.", rich_help_panel=SAYS)
    ] = None,
    min_redis_pack_version: Annotated[str | None, typer.Option(help="Default: 5.2.", rich_help_panel=SAYS)] = None,
) -> None:
    """Make a package of a module: load it into a server of its own, and write what it says of itself beside it.

    The same input makes the same file, byte for byte. Exit code 1: no package was made, or --check found something.
    """
    from modfleet.packing import require_extra

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this ends the server and the files as well
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
        raise typer.BadParameter("Give either a MODULE.so to pack or --check FILE.zip.")
    if check is not None and (
        output is not None or manifest is not None or flags or deps or server or force or not load
    ):
        raise typer.BadParameter("--check takes no option but --json.")
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
            server=server,
            force=force,
        )
        _pack(order, as_json=as_json)


def _check(path: Path, *, as_json: bool) -> None:
    from modfleet.packing.check import check_package

    report = check_package(path)
    if as_json:
        _print_json(_document(report))
    elif report.problems:
        typer.echo(f"{path} cannot be used:")
        for problem in report.problems:
            typer.echo(f"  {problem['error_code']}: {problem['description']}")
    else:
        typer.echo(f"{path} is fine")
        _print_summary(report)
    raise typer.Exit(ExitCode.FAILED if report.problems else ExitCode.SUCCEEDED)


def _pack(order: "Order", *, as_json: bool) -> None:
    from modfleet.packing.build import make_package

    packed = make_package(order)
    if as_json:
        _print_json({**_document(packed.report), "changed": packed.has_changed})
        return
    typer.echo(f"packed {packed.path}" if packed.has_changed else f"{packed.path} is this package already")
    _print_summary(packed.report)


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
    """From `NAME=URL#sha256=HEX` of each; the digest is written as in a link to a Python package."""
    if given is None:
        return None
    built: dict[str, dict[str, str]] = {}
    for text in given:
        name, _, link = text.partition("=")
        url, _, digest = link.partition("#sha256=")
        built[name] = {key: value for key, value in (("url", url), ("sha256", digest)) if value}
    return built
