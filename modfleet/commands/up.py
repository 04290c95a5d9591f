"""`modfleet up`: a whole cluster on this machine."""

import os
import shlex
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
    nodes: Annotated[int, typer.Option(min=0, max=50, help="How many nodes, each with a Valkey server.")] = 3,
    host: Annotated[str, typer.Option(help="Address that the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Folder that everything is kept in.")] = Path(".modfleet"),
    sample: Annotated[bool, typer.Option(help="Roll the sample module out at the start.")] = True,
    tls: Annotated[bool, typer.Option("--tls", help="Serve HTTPS with a self-signed certificate.")] = False,
) -> None:
    """Start a whole cluster on this machine, and keep it until Ctrl-C.

    The first user is `admin`; the password is MODFLEET_ADMIN_PASSWORD, or generated at the first start and printed.
    Started again on the same folder it goes on with what is there.
    """
    from modfleet.cluster import Cluster, ClusterOptions, require_control_plane
    from modfleet.sample import SampleError

    os.umask(0o077)  # all that is kept, and what each process makes, is for this user alone
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
        if ending.is_asked_for:  # a library made another error of it, as SQLite does of one in a function that it calls
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
    """Until `Ended` is raised."""
    from modfleet.demo import call_sample, require_sample

    if sample:
        require_sample(cluster)
    cluster.start()
    console.print(f"ready {cluster.url}")
    if sample:
        call_sample(cluster, console)
    console.print(f"  API        {cluster.url}/v2/nodes")
    console.print(f"  documents  {cluster.url}/docs")
    console.print(f"  admin      {cluster.url}/admin/")
    console.print(f"  user       {cluster.user}, password {cluster.password}")
    trust = ""
    if cluster.certificate is not None:
        console.print(f"  trust      {cluster.certificate}")
        trust = f" --cacert {shlex.quote(str(cluster.certificate))}"
    console.print(f"  commands   modfleet login --url {cluster.url} --user {cluster.user}{trust}", soft_wrap=True)
    console.print("Ctrl-C ends it; the data stays.")
    while True:
        time.sleep(3600)


class Ended(BaseException):
    """A signal asks for the end. Like `KeyboardInterrupt` no handler of errors may take it for one."""


class Ending:
    """The first signal is raised as `Ended`, wherever the program is; each later one makes the end quick.

    It is raised again until `begin` is called: where Python runs a finalizer, or what a fork needs done, it drops what
    is raised.
    """

    def __init__(self, cluster: "Cluster") -> None:
        self.is_asked_for = False
        self._has_begun = False
        self._cluster = cluster
        for number in (*ENDING, signal.SIGALRM):
            signal.signal(number, self._handle)
        sys.unraisablehook = _tell_but_for_the_end

    def begin(self) -> None:
        """From now on nothing is raised any more."""
        self._has_begun = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.is_asked_for = True
        if not self._has_begun:
            signal.setitimer(signal.ITIMER_REAL, RAISED_AGAIN_SECONDS)
            raise Ended
        if number != signal.SIGALRM:
            self._cluster.supervisor.kill_all()


def _tell_but_for_the_end(unraisable: "sys.UnraisableHookArgs") -> None:
    if not isinstance(unraisable.exc_value, Ended):
        sys.__unraisablehook__(unraisable)
