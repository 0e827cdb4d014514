import os

import pytest

from avt_jax.errors import UserError
from avt_jax.inference.find_files import find_files


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with media files and others."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.mp4",
        "a.MP4",
        "notes.txt",
        "-x.wav",
        "odd[1].mp4",
        "deep/c.mkv",
        "deep/er/d.flac",
        "deep/.hidden.mp4",
        "deep/.away/e.mp4",
        "deep/text.md",
        "deep/f.r3d",
        "none/readme.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["b.mp4", "a.MP4"], ["b.mp4", "a.MP4"]),
        (["."], ["-x.wav", "a.MP4", "b.mp4", "odd[1].mp4", "deep/c.mkv", "deep/er/d.flac"]),
        (["deep/", "b.mp4"], ["deep/c.mkv", "deep/er/d.flac", "b.mp4"]),
        (["*.mp4"], ["b.mp4", "odd[1].mp4"]),
        # No suffix is named: only what is media, and what lies below the folders.
        (["d*"], ["deep/c.mkv", "deep/er/d.flac"]),
        (["deep/*.r3d"], ["deep/f.r3d"]),
        (["**/*.flac", "**/*.mkv"], ["deep/er/d.flac", "deep/c.mkv"]),
        # A file of that name comes before the pattern that it also is.
        (["odd[1].mp4"], ["odd[1].mp4"]),
        (["notes.txt", "missing.mp4"], ["notes.txt", "missing.mp4"]),
        (["b.mp4", "./b.mp4", "deep/../b.mp4", "*.mp4", "deep", "deep/c.mkv"],
         ["b.mp4", "odd[1].mp4", "deep/c.mkv", "deep/er/d.flac"]),
    ],
)  # fmt: skip
def test_words_stand_for_files_in_order_and_once(here, words, found):
    assert find_files(words) == found
    absolute = [os.path.join(here, path) for path in found]
    assert find_files([*found, *absolute]) == found


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("*.mov", r"no video or sound file matches '\*.mov'"),
        ("none/*", "no video or sound file matches"),
        ("none", "the folder 'none' has no video or sound file"),
    ],
)
def test_words_that_stand_for_nothing_are_told(here, word, message):
    with pytest.raises(UserError, match=message):
        find_files(["b.mp4", word])
