"""`modfleet up`: run a whole cluster on this machine."""

import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from modfleet.failure import ExitCode
from modfleet.supervisor import StartError

if TYPE_CHECKING:
    from modfleet.cluster import Cluster

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RAISED_AGAIN_SECONDS = 0.2


def up(
    nodes: Annotated[int, typer.Option(min=0, max=50, help="Number of nodes, each with its own Valkey server.")] = 3,
    host: Annotated[str, typer.Option(help="Address that the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 for any free port.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Directory for all data of the cluster.")] = Path(".modfleet"),
    sample: Annotated[bool, typer.Option(help="Roll out the sample module at the start.")] = True,
    tls: Annotated[bool, typer.Option("--tls", help="Serve HTTPS with a self-signed certificate.")] = False,
) -> None:
    """Run a complete Modfleet on this machine until Ctrl-C: control plane, broker and nodes.

    The first user is `admin`. The password is MODFLEET_ADMIN_PASSWORD, else it is generated at the first start. The
    command prints both. A later start with the same directory keeps its data.
    """
    from modfleet.cluster import Cluster, ClusterOptions, require_control_plane
    from modfleet.sample import SampleError

    os.umask(0o077)  # only this user can read the files of the cluster
    console = Console(highlight=False, markup=False, soft_wrap=True)
    options = ClusterOptions(nodes=nodes, host=host, port=port, data_dir=data_dir, tls=tls)
    cluster = Cluster(options, tell=console.print)
    ending = Ending(cluster)
    try:
        require_control_plane()
        _serve(cluster, console, sample=sample and nodes > 0)
    except Ended:
        console.print("stopping")
    except Exception as error:
        if ending.is_asked_for:  # a library may replace the error, as SQLite does in its callbacks
            console.print("stopping")
        elif isinstance(error, StartError | SampleError):
            typer.echo(" ".join(str(error).split()), err=True)
            raise typer.Exit(ExitCode.USAGE) from error
        else:
            raise
    finally:
        ending.begin()
        cluster.stop()
    console.print("stopped; the data is kept")


def _serve(cluster: "Cluster", console: Console, *, sample: bool) -> None:
    """Start the cluster and wait until `Ended` is raised."""
    from modfleet.demo import require_sample, show_sample

    if sample:
        require_sample(cluster)
    cluster.start()
    console.print(f"ready {cluster.url}")
    console.print(f"  API        {cluster.url}/v2/nodes")
    console.print(f"  API docs   {cluster.url}/docs")
    console.print(f"  console    {cluster.url}/admin/")
    console.print(f"  user       {cluster.user}, password {cluster.password}")
    trust = ""
    if cluster.certificate is not None:
        console.print(f"  CA file    {cluster.certificate}")
        trust = f" --cacert {shlex.quote(str(cluster.certificate))}"
    words = f"{_program()} login --url {cluster.url} --user {cluster.user}{trust}"
    console.print(f"  sign in    {words}", soft_wrap=True)
    if not cluster.nodes:
        console.print(f"  add a node {_program()} nodes add NAME, as docs/howto/own-server.md shows", soft_wrap=True)
    if sample:
        show_sample(cluster, console)
    console.print("Ctrl-C stops the cluster. The data is kept.")
    while True:
        time.sleep(3600)


def _program() -> str:
    """Return how the person can call `modfleet`: by its name only if a shell finds this installation's."""
    path = Path(sys.executable).with_name("modfleet")
    found = shutil.which("modfleet")
    if not path.exists() or (found and Path(found).samefile(path)):
        return "modfleet"
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


class Ended(BaseException):
    """A signal asks for the end. It is no `Exception`, so that no error handler catches it."""


class Ending:
    """Raise the first signal as `Ended`, and kill all processes at each later one.

    `Ended` is raised again until `begin` is called, because Python drops exceptions in finalizers and fork hooks.
    """

    def __init__(self, cluster: "Cluster") -> None:
        self.is_asked_for = False
        self._has_begun = False
        self._cluster = cluster
        for number in (*ENDING, signal.SIGALRM):
            signal.signal(number, self._handle)
        sys.unraisablehook = self._ignore_consequences

    def begin(self) -> None:
        """Raise nothing from now on."""
        self._has_begun = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _ignore_consequences(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Ignore `Ended`, and what follows from it: a fork hook that was cut off has not acquired what it then releases."""
        if not self.is_asked_for:
            sys.__unraisablehook__(unraisable)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.is_asked_for = True
        if not self._has_begun:
            signal.setitimer(signal.ITIMER_REAL, RAISED_AGAIN_SECONDS)
            raise Ended
        if number != signal.SIGALRM:
            self._cluster.supervisor.kill_all()
