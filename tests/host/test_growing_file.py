"""A file that grows, where files are taken when they are closed, as a mounted bucket does."""

import errno
import os

import pytest

from avt_jax.host import growing_file
from avt_jax.host.growing_file import GrowingFile


class OfABucket:
    """A file whose content is there once it is closed; what a killed machine has open is lost."""

    def __init__(self, path, mode, buffering, opener=os.open):
        os.close(opener(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
        self._path, self._new = path, b""
        self._file = open(os.devnull, "ab", buffering=0)

    def fileno(self):
        return self._file.fileno()

    def write(self, data):
        # As a pipe or a full buffer does: not all at once.
        taken = data[:5]
        self._new += taken
        return len(taken)

    def close(self):
        self._file.close()
        with open(self._path, "ab") as file:
            file.write(self._new)


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(growing_file, "open", OfABucket, raising=False)
    # What is there to be synced has no file of its own.
    monkeypatch.setattr(os, "fsync", lambda file: None)


def test_what_was_synced_is_there_while_the_file_is_open(bucket, tmp_path):
    path = tmp_path / "lines"
    file = GrowingFile(path)
    file.add("first line\n")
    assert path.read_text() == ""
    file.sync()
    file.add("grün\n")
    assert path.read_text() == "first line\n"
    file.sync()
    assert path.read_text() == "first line\ngrün\n"
    file.add("last\n")
    file.close()
    assert path.read_text() == "first line\ngrün\nlast\n"


def test_a_file_that_is_there_is_kept(tmp_path):
    path = tmp_path / "lines"
    path.write_text("before\n")
    file = GrowingFile(path)
    file.add("after\n")
    file.sync()
    file.add("and on\n")
    file.close()
    assert path.read_text() == "before\nafter\nand on\n"


def test_a_file_that_was_deleted_stays_deleted(tmp_path):
    file = GrowingFile(tmp_path / "lines")
    (tmp_path / "lines").unlink()
    file.sync()
    file.add("nowhere\n")
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = GrowingFile(tmp_path / "lines")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        file.sync()
    file.close()
