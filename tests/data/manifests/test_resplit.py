"""A manifest that exists is divided: groups undivided, classes alike, the rest as it was."""

import collections
import csv

import pytest

from avt_jax.data.manifests.group_splits import SplitFractions
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.data.manifests.resplit import split_manifest
from avt_jax.errors import UserError


def write(path, rows, header=("path", "start_sec", "end_sec", "label")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def clips(tmp_path):
    """Two classes, ten videos each, three spans of each; no file is there."""
    rows = [
        (f"v/{label}{video}_{part}.mp4", 2 * part, 2 * part + 1.5, label)
        for label in ("dog", "cat")
        for video in range(10)
        for part in range(3)
    ]
    return write(tmp_path / "clips.csv", rows)


def test_groups_are_divided_and_the_rest_stays(clips, tmp_path):
    before = read(clips)
    divided = split_manifest(clips, tmp_path / "new.csv", group_by="(.+)_", seed=1)
    after = read(tmp_path / "new.csv")
    assert [{k: v for k, v in row.items() if k != "split"} for row in after] == before
    splits = collections.defaultdict(set)
    for row in after:
        splits[row["path"].split("_")[0]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    for label in ("cat", "dog"):
        held = sorted(next(iter(splits[f"v/{label}{video}"])) for video in range(10))
        assert held == ["test"] + ["train"] * 8 + ["val"]
    assert divided.num_groups == {"train": 16, "val": 2, "test": 2}
    expected = {"train": 24, "val": 3, "test": 3}
    assert divided.counts == {"cat": expected, "dog": expected} and divided.grouping is None
    assert read_manifest(tmp_path / "new.csv").has_splits


def test_the_division_does_not_depend_on_the_order_of_lines(clips, tmp_path):
    rows = [tuple(row.values()) for row in read(clips)]
    write(tmp_path / "turned.csv", rows[::-1])
    split_manifest(clips, tmp_path / "a.csv")
    split_manifest(tmp_path / "turned.csv", tmp_path / "b.csv")
    split_manifest(clips, tmp_path / "c.csv", seed=1)
    a, b, c = (
        {row["path"]: row["split"] for row in read(tmp_path / f"{name}.csv")} for name in "abc"
    )
    assert a == b != c


def test_clips_of_a_file_and_copies_of_it_share_a_split(tmp_path):
    rows = []
    for video in range(12):
        (tmp_path / f"{video}.mp4").write_text(f"{video % 6}")
        rows += [(f"{video}.mp4", second, second + 1, "ab"[second % 2]) for second in range(4)]
    split_manifest(
        write(tmp_path / "clips.csv", rows),
        tmp_path / "new.csv",
        fractions=SplitFractions(0.3, 0.3),
    )
    splits = collections.defaultdict(set)
    for row in read(tmp_path / "new.csv"):
        splits[int(row["path"].split(".")[0]) % 6].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}


def test_paths_lead_to_the_same_files_from_another_folder(clips, tmp_path):
    (tmp_path / "sub").mkdir()
    split_manifest(clips, tmp_path / "sub" / "new.csv")
    one, two = read_manifest(clips), read_manifest(tmp_path / "sub" / "new.csv")
    assert [clip.path for clip in one.clips] == [clip.path for clip in two.clips]
    (tmp_path / "up").mkdir()
    moved = write(tmp_path / "up" / "clips.csv", [(f"{n}.mp4", "", "", "a") for n in range(3)])
    split_manifest(moved, tmp_path / "up.csv")
    assert [row["path"] for row in read(tmp_path / "up.csv")] == [f"up/{n}.mp4" for n in range(3)]


def test_several_label_sets(tmp_path):
    rows = [(f"{n}.mp4", f"v{n // 10}", f"n{n}") for n in range(20)]
    clips = write(tmp_path / "clips.csv", rows, ("path", "label_verb", "label_noun"))
    divided = split_manifest(clips, tmp_path / "new.csv")
    expected = {"train": 8, "val": 1, "test": 1}
    assert divided.counts == {"v0": expected, "v1": expected}
    assert [row["label_noun"] for row in read(tmp_path / "new.csv")] == [f"n{n}" for n in range(20)]


def test_splits_that_are_there_are_only_replaced_when_asked(tmp_path):
    header = ("split", "path", "label")
    clips = write(tmp_path / "clips.csv", [("val", "a.mp4", "x"), ("", "b.mp4", "x")], header)
    with pytest.raises(
        UserError, match="1 of 2 clips in .* have a split already; --replace-splits"
    ):
        split_manifest(clips, tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()
    split_manifest(clips, tmp_path / "new.csv", replace=True, fractions=SplitFractions(0, 0))
    assert [row["split"] for row in read(tmp_path / "new.csv")] == ["train", "train"]
    assert list(read(tmp_path / "new.csv")[0]) == list(header)
    empty = write(tmp_path / "empty.csv", [("", "a.mp4", "x"), ("", "b.mp4", "x")], header)
    split_manifest(empty, tmp_path / "other.csv")


def test_mistakes_write_nothing(clips, tmp_path):
    out = tmp_path / "new.csv"
    with pytest.raises(
        UserError, match="'dog._' is not found in 30 of 60 paths, such as 'v/cat0_0"
    ):
        split_manifest(clips, out, group_by="dog._")
    with pytest.raises(UserError, match="clips.csv exists"):
        split_manifest(clips, clips)
    with pytest.raises(UserError, match="does not exist"):
        split_manifest(tmp_path / "none.csv", out)
    assert not out.exists()
