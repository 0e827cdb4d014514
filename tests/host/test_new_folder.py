"""A folder that appears complete or not at all."""

import fcntl
import os

import pytest

from avt_jax.errors import UserError
from avt_jax.host.new_folder import new_folder


def test_new_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "a" / "out[1]"
    with pytest.raises(ZeroDivisionError), new_folder(out) as folder:
        (folder / "file").touch()
        raise ZeroDivisionError
    assert list(out.parent.iterdir()) == []
    dead, living = (out.with_name(f"{out.name}.partial-{name}") for name in ("dead", "living"))
    foreign = out.with_name(f"{out.name}.partial-foreign")
    for path in (dead, living, foreign):
        path.mkdir()
        (path / "file").touch()
    (dead / ".avt-lock").touch()
    with open(living / ".avt-lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with new_folder(out) as folder:
            (folder / "file").touch()
    assert sorted(out.parent.iterdir()) == sorted([out, living, foreign])
    assert os.listdir(out) == ["file"]
    with pytest.raises(UserError, match="not an empty folder"), new_folder(out):
        pass
    (tmp_path / "text").touch()
    with (
        pytest.raises(UserError, match="cannot create"),
        new_folder(tmp_path / "text" / "out"),
    ):
        pass
