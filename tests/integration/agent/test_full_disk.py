"""The disk of the server's configuration is full: a small file system in a mount namespace of the server."""

from pathlib import Path

import pytest

from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.messages import Phase, Reason
from tests.integration.agent.conftest import SERVERS, Site
from tests.integration.agent.test_persistence import Configured

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]

MOUNT = 'mount -t tmpfs -o size=64k none "$0" && cp "$0/../server.conf.first" "$0/server.conf" && exec "$@"'


class OnSmallDisk(Configured):
    """Its configuration file is on a file system of 64 KiB, which only its process sees."""

    @property
    def file(self) -> Path:
        return self.folder / "etc/server.conf"

    def start(self) -> "OnSmallDisk":
        (self.folder / "etc").mkdir(parents=True)
        self.write()
        self.file.rename(self.folder / "server.conf.first")
        self.prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, self.folder / "etc")
        self.spawn([*self.prefix, self.binary, self.file])
        return self

    @property
    def disk(self) -> Path:
        assert self.process
        return Path(f"/proc/{self.process.pid}/root{self.folder}/etc")

    def fill(self) -> None:
        with pytest.raises(OSError, match="No space"):
            (self.disk / "filler").write_bytes(b"x" * 65536)

    def empty(self) -> None:
        (self.disk / "filler").unlink()

    def text(self) -> str:
        return (self.disk / "server.conf").read_text()


@pytest.fixture
def site(short_folder, shelf, binary):
    server = OnSmallDisk(short_folder / "s", binary=binary, aof="no").start()
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": shelf.url,
        "MODFLEET_SERVER_URL": server.url,
        "MODFLEET_MODULES_DIR": str(short_folder / "modules"),
        "MODFLEET_JOURNAL_DIR": str(short_folder / "journal"),
        "MODFLEET_PERSISTENCE": "rewrite",
        "MODFLEET_SCRATCH": "off",
    }
    made = Site(short_folder, server, shelf, Runner(settings_from(environ)), environ)
    made.runner.recover()
    yield made
    server.kill()


def test_a_removal_fails_and_leaves_the_module(site, built):
    site.install(built("greet"))
    text = site.server.text()
    site.server.fill()
    report = site.remove(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.DISK_FULL)
    assert (site.server.loaded(), site.server.text()) == ({("greet", 10000)}, text)
    site.server.empty()
    assert site.remove(built("greet")).phase is Phase.SUCCEEDED
    assert (site.server.loaded(), "loadmodule" in site.server.text()) == (set(), False)
