"""Files that appear complete or not at all: contents, failures, what is left behind."""

import errno
import hashlib
import os
import stat

import pytest

from avt_jax.errors import UserError
from avt_jax.host import new_files
from avt_jax.host.checksum import sha256_of


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), new_files.replacing(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_an_old_file_is_replaced_when_the_new_one_is_complete(tmp_path, durable):
    path = tmp_path / "file"
    path.write_text("old")
    with new_files.replacing(path, durable=durable) as file:
        file.write("é\n")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_bytes() == "é\n".encode() and list(tmp_path.iterdir()) == [path]
    with new_files.replacing(path, "wb", durable=durable) as file:
        file.write(b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(source, target):
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    new_files.write_text(tmp_path / "file", "text", durable=True)
    assert done == ["file", "name", "folder"]
    new_files.write_text(tmp_path / "file", "text")
    assert done[3:] == ["name"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EIO])
def test_a_folder_need_not_be_one_that_can_be_synced(tmp_path, monkeypatch, code):
    fsync = os.fsync

    def files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    path = tmp_path / "file"
    if code == errno.EIO:
        with pytest.raises(UserError, match="cannot write .*file: Input/output error"):
            new_files.write_text(path, "text", durable=True)
    else:
        new_files.write_text(path, "text", durable=True)
        assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "text"


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    path = tmp_path / "nowhere" / "x"
    with pytest.raises(UserError) as told:
        new_files.write_text(path, "", advice="make room")
    assert str(told.value) == f"cannot write {path}: No such file or directory; make room."
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write .*folder: Is a directory"):
        new_files.write_text(tmp_path / "folder", "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
    # The hidden name must fit where the final one just does.
    new_files.write_text(tmp_path / ("n" * 255), "")


def test_json(tmp_path):
    path = tmp_path / "a.json"
    new_files.write_json(path, {"a": [1]}, indent=1)
    assert path.read_text() == '{\n "a": [\n  1\n ]\n}\n'
    new_files.write_json(path, {"a": [1]}, indent=None)
    assert path.read_text() == '{"a": [1]}'


def test_new_files_get_their_names_together_and_in_order(tmp_path, monkeypatch):
    order = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(b.name), replace(a, b)))
    writers = {tmp_path / name: (lambda file, name=name: file.write(name)) for name in "cab"}
    new_files.write_new(writers)
    assert order == ["c", "a", "b"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {n: n for n in "abc"}


def test_new_files_replace_nothing(tmp_path):
    (tmp_path / "b").write_text("mine")
    with pytest.raises(UserError, match="b exists; delete it"):
        new_files.write_new({tmp_path / name: lambda file: None for name in "ab"})
    with pytest.raises(UserError, match="the folder of .* does not exist"):
        new_files.write_new({tmp_path / "none" / "a": lambda file: None})
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("b", "mine")]


def test_one_failure_leaves_none_of_the_new_files(tmp_path, monkeypatch):
    def fail(file):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        new_files.write_new({tmp_path / "a": lambda file: None, tmp_path / "b": fail})
    with pytest.raises(UserError, match="'bad\\\\udcff' is not valid Unicode"):
        new_files.write_new({tmp_path / "a": lambda file: file.write("bad\udcff")})
    replace = os.replace

    def replace_first_only(source, target):
        if target.name == "b":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_first_only)
    with pytest.raises(UserError, match="cannot write .*b: No space left on device"):
        new_files.write_new({tmp_path / name: lambda file: None for name in "ab"})
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_was_writing_is_known(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_files.replacing_path(tmp_path / "a") as partial:
        partial.touch()
        assert new_files.is_partial(partial)
        left = partial.with_name(partial.name.replace(".partial", "0.partial"))
        left.touch()
        raise KeyboardInterrupt
    (tmp_path / ".hidden").touch()
    assert {path.name for path in tmp_path.iterdir()} == {left.name, ".hidden"}
    new_files.remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


def test_checksum(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"weights")
    assert sha256_of(path) == hashlib.sha256(b"weights").hexdigest()
