"""A lock between processes: held, waited for, given back by the dead."""

import errno
import fcntl
import io
import multiprocessing
import os
import signal

import pytest

from avt_jax.host import lock
from avt_jax.host.lock import locked


def hold(path, ready):
    """In another process: holds the lock until it is killed."""
    with locked(path):
        ready.set()
        signal.pause()


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold, args=(path, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(BlockingIOError), locked(path):
        pass
    waited = []

    def kill():
        waited.append(True)
        os.kill(holder.pid, signal.SIGKILL)

    with locked(path, on_wait=kill):
        assert waited == [True]
    holder.join()
    with locked(path, on_wait=kill):
        assert waited == [True], "nobody to wait for"
    assert path.read_bytes() == b""


def test_a_lock_whose_file_is_deleted_counts_as_held(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    flock = fcntl.flock

    def delete_first(file, operation):
        path.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", delete_first)
    with pytest.raises(BlockingIOError), locked(path):
        pass


def test_a_lock_need_not_make_its_file(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "lock", create=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_also_on_a_mount_that_has_died(tmp_path, monkeypatch):
    """Closing the file tells the file system, which answers with an error."""

    class Dying(io.FileIO):
        def close(self):
            super().close()
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(lock, "open", Dying, raising=False)
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        raise ZeroDivisionError
    with locked(tmp_path / "lock"):
        pass
