"""A file is replaced whole, or not at all."""

import os

import pytest

from durable import make_directory, remove_temporaries, replacing, temporary_name, write_file


def test_it_works(tmp_path):
    path = tmp_path / "file"
    write_file(path, b"old", mode=0o600)
    write_file(path, b"new", mode=0o644)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o644)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    write_file(path, b"old", mode=0o600)
    with pytest.raises(TypeError), replacing(path, mode=0o600) as file:
        file.writelines([b"ne", "w"])  # type: ignore[list-item]  # the failure
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path):
    path, other = tmp_path / "fi[l]e", tmp_path / "other"
    for each in (path, other):
        write_file(each, b"", mode=0o600)
        temporary_name(each).write_bytes(b"")
    remove_temporaries(path)
    assert [each.name.startswith(".other") for each in tmp_path.glob(".*")] == [True]
    assert path.exists()


def test_the_mask_of_the_process_does_not_count(tmp_path):
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "file", b"", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_directory_has_its_mode_whatever_the_mask_is(tmp_path):
    (tmp_path / "there").mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        make_directory(tmp_path / "there/a/b", mode=0o755)
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "there/a/b", tmp_path / "there/a", tmp_path / "there")]
    assert modes == [0o755, 0o755, 0o700]
