"""What the end of a server's process has written is kept, and nothing that was written before or after it."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.agent.restart.kept_data import Keeper, Kept, KeptData


@pytest.fixture
def journal(tmp_path):
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


@pytest.fixture
def saved(tmp_path):
    """The server's file, from an earlier save."""
    file = tmp_path / "dump.rdb"
    file.write_text("earlier")
    os.utime(file, (1000, 1000))
    return file


def noted(journal, saved, *, version=2, module_name="keeps"):
    notes = KeptData(journal)
    return notes.note(rollout="r", module_name=module_name, version=version, former_version=1, saved=saved)


def note_of(journal: Path) -> Kept:
    note = KeptData(journal).of("keeps")[0]
    assert note
    return note


def file_of(journal: Path) -> Path:
    file = note_of(journal).file
    assert file
    return file


def save(file: Path, text: str) -> None:
    """As a server does it."""
    fresh = file.with_name("temp-1.rdb")
    fresh.write_text(text)
    fresh.rename(file)


def kept(journal, saved, text="end", started=None):
    """The problem, after an end of the server that writes this text. `started`: the next process, which may run already."""
    keeper = Keeper(noted(journal, saved))
    if text:
        save(saved, text)
    keeper.take(ended_now=started is None)
    problem = keeper.finish(started)
    keeper.close()
    return problem


def test_a_later_save_leaves_it(journal, saved):
    assert kept(journal, saved) == ""
    save(saved, "later")
    assert file_of(journal) == saved.with_name("dump.rdb.before-keeps-2")
    assert file_of(journal).read_text() == "end"


def test_a_server_that_has_saved_nothing(journal, saved):
    problem = kept(journal, saved, text="")
    assert problem == (
        f"The data from before the change are not kept: {saved} is not seen to be the file that the server has written at "
        "its end."
    )
    assert note_of(journal).file is None


def test_a_file_that_is_as_old_as_the_next_process(journal, saved):
    """A replica has received it from its master, for example."""
    assert "is not seen to be the file" in kept(journal, saved, started=time.time() - 10)
    assert note_of(journal).file is None


def test_a_start_that_is_not_known(journal, saved):
    keeper = Keeper(noted(journal, saved))
    save(saved, "end")
    keeper.take(ended_now=False)
    assert "is not seen to be the file" in keeper.finish(None)
    keeper.close()
    assert note_of(journal).file is None


def test_a_server_that_does_not_start_again(journal, saved):
    keeper = Keeper(noted(journal, saved))
    save(saved, "end")
    keeper.take(ended_now=True)
    keeper.close()
    assert file_of(journal).read_text() == "end"


@pytest.fixture
def no_links(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_links")
def test_a_copy(journal, saved):
    assert kept(journal, saved) == ""
    file = file_of(journal)
    assert file == journal / "before-keeps-2.rdb"
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("end", 0o600)
    assert Keeper(note_of(journal)).finish(None) == ""  # an agent that was killed after that


@pytest.mark.usefixtures("no_links")
def test_the_copy_is_of_the_file_at_the_end(journal, saved):
    keeper = Keeper(noted(journal, saved))
    save(saved, "end")
    keeper.take(ended_now=True)
    save(saved, "later")
    assert keeper.finish(None) == ""
    keeper.close()
    assert file_of(journal).read_text() == "end"


@pytest.mark.usefixtures("no_links")
def test_no_room_for_a_copy(journal, saved, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3}))
    assert kept(journal, saved) == (
        f"The data from before the change are not kept: {saved} cannot be linked (Operation not permitted), and {journal} has "
        "no room for a copy."
    )


def test_no_file(journal, tmp_path):
    assert "cannot be linked (No such file or directory), nor can it be read" in kept(
        journal, tmp_path / "none.rdb", text=""
    )


def test_an_agent_that_was_killed_before_it_made_the_link(journal, saved):
    """By now, the file may be a later one."""
    note = noted(journal, saved)
    save(saved, "perhaps later")
    assert "No such file" in Keeper(note).finish(time.time())
    assert note.file is None


def test_one_note_for_each_version(journal, saved):
    """A change to another version may fail: then the data from before the former change are still the way back."""
    kept(journal, saved)
    first = file_of(journal)
    noted(journal, saved, module_name="other")
    noted(journal, saved, version=3)
    assert first.exists()
    noted(journal, saved)
    assert not first.exists()
    versions = sorted((each.module_name, each.version) for each in KeptData(journal).read())
    assert versions == [("keeps", 2), ("keeps", 3), ("other", 2)]


def test_a_note_that_a_newer_one_has_replaced(journal, saved):
    old = noted(journal, saved)
    kept(journal, saved)
    KeptData(journal).drop(old)
    assert file_of(journal).exists()
    note = note_of(journal)
    KeptData(journal).drop(note)
    KeptData(journal).drop(note)
    assert (KeptData(journal).read(), note.file) == ((), None)


def test_a_damaged_file(journal, saved, caplog):
    kept(journal, saved)
    note = note_of(journal)
    (journal / ".kept.json").write_text("{")
    notes = KeptData(journal)
    assert (notes.read(), notes.read(), len(caplog.records)) == ((), (), 1)
    notes.drop(note)
    assert saved.with_name("dump.rdb.before-keeps-2").exists()


def test_a_directory_that_only_the_server_may_search(tmp_path, monkeypatch):
    """Nothing is kept there, and the note can be deleted nevertheless."""

    def refused(self, former=Path.unlink, **more):
        if self.name.startswith("dump.rdb."):
            raise PermissionError
        former(self, **more)

    data = KeptData(tmp_path)
    kept = data.note(rollout="r", module_name="keeps", version=2, former_version=1, saved=tmp_path / "dump.rdb")
    long = replace(kept, link=str(tmp_path / ("x" * 300)))  # stat fails, as it does without the right
    assert long.file is None
    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr("os.access", lambda *_: True)
    with pytest.raises(PermissionError):
        data.drop(kept)
    monkeypatch.setattr("os.access", lambda *_: False)
    data.drop(kept)
    assert data.read() == ()
