"""Clips of one source video share a split when the user says how to tell."""

import csv

import pytest
from published import touch

from avt_jax.data.manifests.from_folder import SplitFractions, manifest_from_folder
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Two classes, ten source videos each, three clips of each."""
    names = [
        f"{label}/{label}{video}_clip{clip}.mp4"
        for label in ("cat", "dog")
        for video in range(10)
        for clip in range(3)
    ]
    return touch(tmp_path / "mine", *names)


def splits(folder, out, **options):
    manifest_from_folder(folder, out, **options)
    with open(out, newline="") as file:
        return {row["path"]: row["split"] for row in csv.DictReader(file)}


def test_clips_of_a_group_share_a_split(folder, tmp_path):
    found = splits(folder, tmp_path / "a.csv", group_by=r"(.+)_clip", seed=1)
    assert len(found) == 60
    for label in ("cat", "dog"):
        groups = [
            {found[f"mine/{label}/{label}{video}_clip{clip}.mp4"] for clip in range(3)}
            for video in range(10)
        ]
        assert all(len(group) == 1 for group in groups)
        held = sorted(group.pop() for group in groups)
        assert held == ["test"] + ["train"] * 8 + ["val"]
    assert found == splits(folder, tmp_path / "b.csv", group_by=r"(.+)_clip", seed=1)
    assert found != splits(folder, tmp_path / "c.csv", group_by=r"(.+)_clip", seed=2)


def test_a_group_may_span_classes_and_have_several_parts(folder, tmp_path):
    number = splits(folder, tmp_path / "a.csv", group_by=r"(\d)_clip")
    parts = splits(folder, tmp_path / "b.csv", group_by=r"/(.)\w+?(\d)_clip")
    whole = splits(folder, tmp_path / "c.csv", group_by=r"^\w+/\w+_")
    for video in range(10):
        paths = [f"mine/{c}/{c}{video}_clip{clip}.mp4" for c in ("cat", "dog") for clip in range(3)]
        assert len({number[path] for path in paths}) == 1
        for own in (paths[:3], paths[3:]):
            assert len({parts[path] for path in own}) == len({whole[path] for path in own}) == 1
    crossing = [
        parts[f"mine/cat/cat{n}_clip0.mp4"] != parts[f"mine/dog/dog{n}_clip0.mp4"]
        for n in range(10)
    ]
    assert any(crossing), "c and d are different parts, so the classes are divided apart"


def test_copies_join_the_groups_they_are_in(folder, tmp_path):
    # A chain: a clip of video n is also one of video n + 1, so that all of them are one group.
    for video in range(9):
        source = folder / "cat" / f"cat{video}_clip0.mp4"
        (folder / "cat" / f"cat{video + 1}_clip1.mp4").write_bytes(source.read_bytes())
    found = splits(folder, tmp_path / "a.csv", group_by=r"(.+)_clip")
    assert len({split for path, split in found.items() if "cat" in path}) == 1
    assert len({split for path, split in found.items() if "dog" in path}) == 3


def test_mistakes(folder, tmp_path):
    out = tmp_path / "a.csv"
    with pytest.raises(UserError, match=r"'\(' is no regular expression"):
        manifest_from_folder(folder, out, group_by="(")
    with pytest.raises(UserError, match="'cat._' is not found in 30 of 60 paths, such as 'dog/"):
        manifest_from_folder(folder, out, group_by="cat._")
    assert not out.exists()


def test_videos_beside_the_manifests_folder_get_absolute_paths(folder, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    manifest_from_folder("../mine", "clips.csv", fractions=SplitFractions(0, 0))
    clips = read_manifest("clips.csv").clips
    assert len(clips) == 60 and all(clip.path.is_file() for clip in clips)
    assert clips[0].source == f"{folder.resolve()}/cat/cat0_clip0.mp4"
