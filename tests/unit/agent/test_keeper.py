"""The directory of a scratch server is deleted, whatever a module has made in it."""

import os

from rollout.agent.scratch.keeper import delete

#: More than Python's recursion, and a path of more bytes than the kernel takes.
DEPTH, NAME = 1100, "deep"


def test_a_path_that_is_too_long_is_deleted(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    place = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir(NAME, dir_fd=place)
        inner = os.open(NAME, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    delete(str(top))
    assert list(tmp_path.iterdir()) == []
