"""The real nginx and the real Caddy with their samples in deploy/, in front of processes on this machine."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.plugins.server import wait_for_port
from tests.ports import free_port
from tests.waiting import PATIENCE

DEPLOY = Path(__file__).parents[1] / "deploy"
#: Debian keeps it out of the path of users.
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
CADDY = Path(sys.executable).with_name("caddy")

#: What a test changes in a sample: time limits, for example.
Change = Callable[[str], str]
#: `(folder, ports of the two API processes, change)`; the block has the proxy's port.
Proxy = Callable[[Path, Sequence[int], Change], AbstractContextManager[int]]


@contextmanager
def running(command: Sequence[str | Path], port: int, environ: Mapping[str, str] | None = None) -> Iterator[int]:
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def with_upstreams(sample: str, upstreams: Sequence[int], *names: str) -> str:
    """The sample with these ports for the processes that it calls `names`."""
    for name, port in zip(names, upstreams, strict=True):
        assert name in sample
        sample = sample.replace(name, f"127.0.0.1:{port}")
    return sample


def as_it_is(sample: str) -> str:
    return sample


@contextmanager
def nginx(folder: Path, upstreams: Sequence[int], change: Change = as_it_is) -> Iterator[int]:
    port = free_port()
    site = with_upstreams(change((DEPLOY / "nginx.conf").read_text()), upstreams, "127.0.0.1:8000", "127.0.0.1:8002")
    site = re.sub(r"\n *ssl_certificate.*", "", site).replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    places = "".join(
        f"{each}_temp_path {folder}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;"
        f"events {{ worker_connections 4096; }} http {{ access_log off; {places} {site} }}"
    )
    with running([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], port):
        yield port


@contextmanager
def caddy(folder: Path, upstreams: Sequence[int], change: Change = as_it_is) -> Iterator[int]:
    port = free_port()
    text = with_upstreams(
        change((DEPLOY / "Caddyfile").read_text()), upstreams, "control-plane:8000", "control-plane-2:8000"
    )
    (folder / "Caddyfile").write_text(text.replace("{\n\tservers", "{\n\tadmin off\n\tservers", 1))
    environ = {**os.environ, "HOME": str(folder), "MODFLEET_HOST": f"http://127.0.0.1:{port}, http://127.0.0.2:{port}"}
    with running([CADDY, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")], port, environ):
        yield port


PROXIES: dict[str, Proxy] = {"nginx": nginx, "caddy": caddy}
