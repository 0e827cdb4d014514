"""A folder that is divided into splits stays so; what a scan passes over is named."""

import os
import unicodedata

import pytest

from avt_jax.data.manifests.from_folder import SplitFractions, manifest_from_folder
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.errors import UserError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def clips_of(folder, out, **options):
    divided = manifest_from_folder(folder, out, **options)
    manifest = read_manifest(out)
    names = manifest.label_sets["label"]
    return divided, {
        clip.source.partition("/")[2]: (names[clip.labels["label"]], clip.split)
        for clip in manifest.clips
    }


@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("Train", "valid", "TEST"), ("training", "validation", "testing")],
)
def test_folders_of_splits(tmp_path, names):
    train, val, test = names
    folder = touch(
        tmp_path / "mine",
        f"{train}/dog/1.mp4", f"{train}/cat/deep/2.mp4", f"{val}/dog/3.wav", f"{test}/cat/4.MKV",
        f"{train}/beside.mp4",
    )  # fmt: skip
    divided, clips = clips_of(folder, tmp_path / "clips.csv")
    assert clips == {
        f"{train}/dog/1.mp4": ("dog", "train"),
        f"{train}/cat/deep/2.mp4": ("cat", "train"),
        f"{val}/dog/3.wav": ("dog", "val"),
        f"{test}/cat/4.MKV": ("cat", "test"),
    }
    assert divided.counts["dog"] == {"train": 1, "val": 1, "test": 0}
    assert divided.passed.beside == [f"{train}/beside.mp4"]
    for options in ({"group_by": "."}, {"fractions": SplitFractions()}):
        with pytest.raises(UserError, match="are splits, which stay as they are"):
            manifest_from_folder(folder, tmp_path / "other.csv", **options)


def test_a_class_that_is_called_like_a_split(tmp_path):
    folder = touch(tmp_path / "mine", "train/1.mp4", "bus/2.mp4", "car/3.mp4", "train/deep/4.mp4")
    _, clips = clips_of(folder, tmp_path / "clips.csv")
    assert {label for label, _ in clips.values()} == {"train", "bus", "car"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train/a/1.mp4", "tset/a/2.mp4"], "'tset', which is none .did you mean 'test'"),
        (["train/a/1.mp4", "val/a/2.mp4", "extra/b/3.mp4"], "'extra', which is none"),
        (["train/1.mp4", "test/2.mp4"], "no class folders in them"),
        (["train/a/1.mp4", "train/b/2.mp4"], "avt manifest .*mine/train"),
    ],
)
def test_half_divided_folders(tmp_path, names, expected):
    folder = touch(tmp_path / "mine", *names)
    with pytest.raises(UserError, match=expected):
        manifest_from_folder(folder, tmp_path / "clips.csv")
    assert not (tmp_path / "clips.csv").exists()


def test_what_is_passed_over_is_named(tmp_path):
    folder = touch(
        tmp_path / "mine",
        "a/1.mp4", "b/2.vob", "a/notes.txt", "a/x.JPG", "b/y.jpg", "b/README", "loose.mov",
        "a/.hidden.mp4", ".trash/3.mp4",
    )  # fmt: skip
    outside = touch(tmp_path / "outside", "9.mp4")
    (folder / "a" / "8.gif").symlink_to(outside / "9.mp4")
    (folder / "c").symlink_to(outside)
    (folder / "a" / "gone.mp4").symlink_to(outside / "nothing")
    (folder / "b" / os.fsdecode(b"latin-\xe9.mp4")).write_text("x")
    divided, clips = clips_of(folder, tmp_path / "clips.csv")
    assert set(clips) == {"a/1.mp4", "b/2.vob", "a/8.gif"}
    assert list(divided.passed.sentences()) == [
        "4 file(s) that are no video or sound by their suffix: .jpg 2, .txt 1, (none) 1",
        "1 file(s) beside the class folders, not in one, such as loose.mov",
        "1 link(s) to folders, not entered (--follow-links enters them), such as c",
        "1 link(s) that lead nowhere, such as a/gone.mp4",
        "1 file(s) whose names are not UTF-8; rename them, such as b/latin-\udce9.mp4",
    ]
    _, clips = clips_of(folder, tmp_path / "links.csv", follow_links=True)
    assert "c/9.mp4" in clips


def test_class_folders_of_one_name_in_two_forms_are_one_class(tmp_path):
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    folder = touch(tmp_path / "mine", *(f"{name}/1.mp4" for name in names), "dog/2.mp4")
    divided, clips = clips_of(folder, tmp_path / "clips.csv")
    assert [label for label, _ in clips.values()].count("café") == 2
    (note,) = divided.notes
    assert r"'cafe\u0301' and 'caf\xe9'" in note


def test_class_folders_with_control_characters(tmp_path):
    folder = touch(tmp_path / "mine", "two\nlines/1.mp4", " dog/2.mp4", "=sum/3.mp4")
    _, clips = clips_of(folder, tmp_path / "clips.csv")
    assert {label for label, _ in clips.values()} == {"two\\nlines", "dog", "=sum"}
