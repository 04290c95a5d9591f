"""The operator's command line."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from modfleet.processes import StartError

app = typer.Typer(no_args_is_help=True, add_completion=True, help="Rolls Redis and Valkey modules out to a fleet.")
#: Exit code of what is wrong with the command, its options or the place it runs in.
USAGE = 2


@app.callback()
def modfleet() -> None:
    """Modfleet rolls user-defined Redis and Valkey modules out to every node of a fleet."""


@app.command()
def up(
    nodes: Annotated[int, typer.Option(min=0, max=50, help="How many nodes, each with a Valkey server.")] = 3,
    host: Annotated[str, typer.Option(help="Address that the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Folder that everything is kept in.")] = Path(".modfleet"),
    sample: Annotated[bool, typer.Option(help="Roll the sample module out at the start.")] = True,
    tls: Annotated[bool, typer.Option("--tls", help="Serve HTTPS with a self-signed certificate.")] = False,
) -> None:
    """Start a whole cluster on this machine, and keep it until Ctrl-C.

    The first user is `admin`; the password is MODFLEET_ADMIN_PASSWORD, or generated at the first start and printed.
    """
    try:
        from modfleet.cluster import Cluster, ClusterOptions
        from modfleet.sample import SampleError, require_compiler
    except ModuleNotFoundError as error:
        raise _usage(f"`modfleet up` needs the control plane: install modfleet[server] ({error}).") from error
    console = Console(highlight=False, soft_wrap=True)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    options = ClusterOptions(nodes=nodes, host=host, port=port, data_dir=data_dir, tls=tls)
    cluster = Cluster(options, tell=lambda line: console.print(line))
    try:
        if sample and nodes:
            require_compiler()
        cluster.start()
        console.print(f"ready {cluster.url}")
        if sample and nodes:
            from modfleet.demo import show_sample

            show_sample(cluster, console)
        _print_addresses(console, cluster.url, cluster.password)
        while not stopping.wait(0.2):
            cluster.processes.watch()
    except (StartError, SampleError) as error:
        raise _usage(str(error)) from error
    finally:
        cluster.stop()
    console.print("stopped")


def _print_addresses(console: Console, url: str, password: str) -> None:
    console.print(f"  API        {url}/v2/nodes")
    console.print(f"  documents  {url}/docs")
    console.print(f"  admin      {url}/admin/")
    console.print(f"  user       admin, password {password}")
    console.print("Ctrl-C ends it; the data stays.")


def _usage(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(USAGE)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
