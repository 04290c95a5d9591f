"""Content digests of what lies on disk."""

import os
from pathlib import Path

import pytest

from rollout.agent.module_files import digests
from rollout.agent.module_files.digests import Digests
from rollout.messages import Member, content_digest


@pytest.fixture
def reads(monkeypatch):
    """Paths whose bytes were read."""
    seen, file_digest = [], digests.file_digest

    def read(path):
        seen.append(Path(path).name)
        return file_digest(path)

    monkeypatch.setattr(digests, "file_digest", read)
    return seen


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "1"
    (folder / "deps").mkdir(parents=True)
    (folder / "a.so").write_bytes(b"abc")
    (folder / "deps/b.txt").write_bytes(b"")
    return folder


def test_it_works(folder):
    members = [
        Member(path="a.so", size=3, sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        Member(path="deps/b.txt", size=0, sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ]
    assert Digests().content(folder) == content_digest(members)
    assert Digests().content(Path("/nowhere")) == ""


def test_unchanged_files_are_read_once(folder, reads):
    known = Digests()
    assert known.content(folder) == known.content(folder)
    assert sorted(reads) == ["a.so", "b.txt"]


def test_a_changed_file_is_read_again(folder, reads):
    known = Digests()
    before = known.content(folder)
    (folder / "a.so").write_bytes(b"abd")
    os.utime(folder / "a.so", ns=(1, 1))
    assert known.content(folder) != before
    assert reads.count("a.so") == 2


def test_content_now_trusts_nothing(folder, reads):
    known = Digests()
    known.content(folder)
    known.content_now(folder)
    assert reads.count("a.so") == 2


def test_others_are_forgotten(folder, reads):
    known = Digests()
    known.content(folder)
    known.forget_others([folder.parent / "11"])
    known.content(folder)
    assert reads.count("a.so") == 2
