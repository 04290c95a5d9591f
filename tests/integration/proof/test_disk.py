"""A full disk below a real server. Each test runs in a process with mounts of its own."""

import errno
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import redis

from tests.fleet import remove_folder, short_folder
from tests.proof import disk
from tests.proof.disk import Disk
from tests.shards import Machine
from tests.waiting import wait_for


def apart(test: Callable[[], None]) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=disk.enter) as pool:
        pool.submit(test).result()


def test_a_file_grows_again_when_there_is_room():
    apart(_a_file_grows_again)


def _a_file_grows_again() -> None:
    folder = short_folder()
    with Disk(folder) as made:
        (folder / "before").write_bytes(b"x" * 10_000)
        made.fill()
        with pytest.raises(OSError, match="No space left") as refused:
            (folder / "after").write_bytes(b"x" * 10_000)
        assert refused.value.errno == errno.ENOSPC
        (folder / "before").rename(folder / "moved")
        made.free()
        (folder / "after").write_bytes(b"x" * 10_000)
    assert list(folder.iterdir()) == []
    remove_folder(folder)


def test_a_server_that_cannot_save():
    apart(_a_server_that_cannot_save)


def _a_server_that_cannot_save() -> None:
    folder = short_folder()
    server = Machine("a", folder / "a", Path(shutil.which("redis-server") or "redis-server"))
    with Disk(server.folder) as made:
        server.start()
        server.call("SET", "key", "x" * 10_000)
        made.fill()
        server.call("BGSAVE")
        wait_for(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err")
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            server.call("SET", "other", "y")
        made.free()
        assert server.call("SAVE")
        server.call("SET", "other", "y")
        server.stop()
    remove_folder(folder)
