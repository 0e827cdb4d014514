"""Annotation and folder become a manifest that reads back, with a report that adds up."""

import csv

import pytest
from published import epic_row, touch, write_csv, write_epic, write_kinetics, write_vggsound

from avt_jax.data.manifests.catalog.build import Options, manifest_from_annotations
from avt_jax.data.manifests.catalog.entries import get_data_set
from avt_jax.data.manifests.manifest import read_classes, read_manifest
from avt_jax.errors import UserError
from avt_jax.host.output.cells import cell_text


def build(name, files, videos, out, **options):
    annotations = [("", path) for path in files]
    return manifest_from_annotations(
        get_data_set(name), annotations, videos, out, Options(**options)
    )


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # Ids of videos may begin like a formula.
    return [{name: cell_text(cell) for name, cell in row.items()} for row in rows]


def read_back(written):
    classes = {name: read_classes(path) for name, path in written.class_lists.items()}
    return read_manifest(written.manifest, classes)


@pytest.fixture
def vggsound(tmp_path):
    """Six rows, and files for four of them: one twice, one whole; and a file of no row."""
    rows = [
        ("-aaaaaaaaaa", 1, "hail", "train"),
        ("_bbbbbbbbbb", 30, "hail", "train"),
        ("_bbbbbbbbbb", 90, "dog barking", "test"),
        ("cc-ccc_cccc", 7, "dog barking", "test"),
        ("ddddddddddd", 0, "dog barking", "train"),
        ("ddddddddddd", 0, "dog barking", "train"),
    ]
    videos = touch(
        tmp_path / "v", "-aaaaaaaaaa_000001.mp4", "x/-aaaaaaaaaa_000001_000011.webm",
        "_bbbbbbbbbb.mkv", "cc-ccc_cccc_000008.mp4", "ddddddddddd_000000.mp4",
    )  # fmt: skip
    return write_vggsound(tmp_path / "vggsound.csv", rows), videos


def test_manifest_class_lists_and_reports(vggsound, tmp_path):
    csv_file, videos = vggsound
    written = build("vggsound", [csv_file], videos, tmp_path / "clips.csv")
    manifest = read_back(written)
    assert manifest.label_sets == {"label": ("dog barking", "hail")}
    assert [
        (clip.source, clip.start_sec, clip.end_sec, clip.labels["label"], clip.split)
        for clip in manifest.clips
    ] == [
        ("v/-aaaaaaaaaa_000001.mp4", 0, None, 1, "train"),
        ("v/_bbbbbbbbbb.mkv", 30, 40, 1, "train"),
        ("v/_bbbbbbbbbb.mkv", 90, 100, 0, "test"),
        ("v/ddddddddddd_000000.mp4", 0, None, 0, "train"),
    ]
    assert all(clip.path.is_file() for clip in manifest.clips)
    train, test = written.tally.splits["train"], written.tally.splits["test"]
    assert (train.annotated, train.found, train.missing, train.skipped) == (4, 3, 0, 1)
    assert (train.duplicate, test.found, test.missing) == (1, 1, 1)
    assert written.num_unmatched == 1 and written.tally.reasons == {"repeated_row": 1}
    assert any("1 source videos have clips in more than one" in text for text in written.warnings)

    problems = {(item["problem"], item["path"], item["row"]) for item in table(written.problems)}
    assert problems == {
        ("duplicate", "-aaaaaaaaaa_000001.mp4", "vggsound.csv:1"),
        ("missing", "", "vggsound.csv:4"),
        ("repeated_row", "ddddddddddd_000000.mp4", "vggsound.csv:6"),
        ("unmatched", "cc-ccc_cccc_000008.mp4", ""),
    }
    counts = {(row["class"], row["split"]): row for row in table(written.report)}
    assert counts["", "test"]["found"] == "1" and counts["hail", "train"]["found"] == "2"
    assert counts["dog barking", "test"]["missing"] == "1" and ("hail", "test") not in counts
    names = {path.name for path in tmp_path.glob("clips*")}
    assert names == {
        "clips.csv", "clips.classes-label.txt", "clips.report.csv", "clips.problems.csv"
    }  # fmt: skip


def test_nothing_is_overwritten_and_nothing_half_written(vggsound, tmp_path):
    csv_file, videos = vggsound
    out = tmp_path / "out" / "clips.csv"
    out.parent.mkdir()
    for name in ("clips.csv", "clips.report.csv", "clips.classes-label.txt"):
        (out.parent / name).write_text("mine")
        with pytest.raises(UserError, match=f"{name} exists"):
            build("vggsound", [csv_file], videos, out)
        assert [path.name for path in out.parent.iterdir()] == [name]
        assert (out.parent / name).read_text() == "mine"
        (out.parent / name).unlink()
    with pytest.raises(UserError, match="folder of .* does not exist"):
        build("vggsound", [csv_file], videos, tmp_path / "none" / "clips.csv")
    with pytest.raises(UserError, match="--out . is no file name"):
        build("vggsound", [csv_file], videos, tmp_path.__class__("."))
    empty = touch(tmp_path / "empty", "x.mp4")
    with pytest.raises(UserError, match=r"none of the 5 clips .* such as 'x.mp4'; expected .*"
                       r"-aaaaaaaaaa_000001_000011\.mp4"):  # fmt: skip
        build("vggsound", [csv_file], empty, out)
    assert not any(out.parent.iterdir())


def test_held_out_videos_depend_on_ids_and_seed_only(tmp_path):
    rows = [
        (f"{label}{number:03d}_{'x' * 6}", start, f"class {label}", split)
        for label in "ab"
        for number in range(30)
        for start in (0, 60)
        for split in ("train",)
    ] + [(f"t{number:010d}", 0, "class a", "test") for number in range(5)]
    csv_file = write_vggsound(tmp_path / "vggsound.csv", rows)
    videos = touch(tmp_path / "v", *(f"{row[0]}_{row[1]:06d}.mp4" for row in rows))

    def splits(name, **options):
        written = build("vggsound", [csv_file], videos, tmp_path / name, **options)
        return {clip.source: clip.split for clip in read_back(written).clips}

    first = splits("1.csv", val_fraction=0.2, seed=1)
    assert first == splits("2.csv", val_fraction=0.2, seed=1)
    other = splits("3.csv", val_fraction=0.2, seed=2)
    assert first != other
    for found in (first, other):
        for label in "ab":
            own = [split for path, split in found.items() if path.startswith(f"v/{label}")]
            assert own.count("val") == 12 and own.count("train") == 48
        assert [s for path, s in found.items() if path.startswith("v/t")] == ["test"] * 5
        for path in found:
            assert found[path] == found[path.replace("_000060", "_000000")], "one video, one split"
    for path in sorted(videos.glob("a*"))[:20]:
        path.unlink()
    fewer = splits("4.csv", val_fraction=0.2, seed=1)
    assert len(fewer) == len(first) - 20
    assert all(first[path] == split for path, split in fewer.items())
    assert "val" not in splits("5.csv").values()


def test_a_data_set_with_a_validation_split_keeps_it(tmp_path):
    rows = [("singing", f"{n}aaaaaaaaaa", 5, 15, s) for n, s in enumerate(["train", "val"])]
    csv_file = write_kinetics(tmp_path / "train.csv", rows)
    videos = touch(tmp_path / "v", "0aaaaaaaaaa.mp4")
    with pytest.raises(UserError, match="--val-fraction 0.1: .* a validation split of its own"):
        build("kinetics", [csv_file], videos, tmp_path / "clips.csv", val_fraction=0.1)


def test_epic_keeps_the_official_indices(tmp_path):
    train = [
        epic_row("P01_101", 0, 0.14, 3.37, ("open", 3), ("door", 3)),
        epic_row("P01_101", 1, 4000.5, 4002.0, ("cut", 96), ("light", 299)),
        epic_row("P01_101", 2, 9.0, 8.0, ("cut", 96), ("light", 299)),
    ]
    val = [epic_row("P02_01", 0, 1.0, 1.89, ("take", 0), ("plate", 2))]
    files = [
        write_epic(tmp_path / "EPIC_100_train.csv", train),
        write_epic(tmp_path / "EPIC_100_validation.csv", val),
        write_csv(tmp_path / "EPIC_100_test_timestamps.csv", [["P03_01", "0:0:1", "0:0:2", "x"]],
                  ["video_id", "start_timestamp", "stop_timestamp", "narration_id"]),
    ]  # fmt: skip
    videos = touch(tmp_path / "EPIC", "P01/videos/P01_101.MP4", "P02/P02_01.MP4", "P03/P03_01.MP4")
    (tmp_path / "lists").mkdir()
    written = build("epic", files, videos, tmp_path / "lists" / "clips.csv")
    manifest = read_back(written)
    assert [clip.labels for clip in manifest.clips] == [
        {"verb": 3, "noun": 3}, {"verb": 96, "noun": 299}, {"verb": 0, "noun": 2}
    ]  # fmt: skip
    assert {name: len(names) for name, names in manifest.label_sets.items()} == {
        "verb": 97, "noun": 300
    }  # fmt: skip
    assert [(clip.start_sec, clip.end_sec) for clip in manifest.clips] == [
        (0.14, 3.37), (4000.5, 4002.0), (1.0, 1.89)
    ]  # fmt: skip
    assert {clip.split for clip in manifest.clips} == {"train", "val"}
    assert written.tally.reasons == {"bad_span": 1, "no_label": 1}
    # The manifest is not above the videos: its paths are absolute.
    assert manifest.clips[0].source == f"{tmp_path.resolve()}/EPIC/P01/videos/P01_101.MP4"


def test_files_of_other_kinetics_classes_are_not_unmatched(tmp_path):
    rows = [
        ("singing", "aaaaaaaaaaa", 5, 15, "train"),
        ("zumba", "bbbbbbbbbbb", 5, 15, "train"),
        ("tickling", "ccccccccccc", 5, 15, "train"),
    ]
    csv_file = write_kinetics(tmp_path / "train.csv", rows)
    names = [f"{label}/{i}_{s:06d}_{e:06d}.mp4" for label, i, s, e, _ in rows[:2]]
    videos = touch(tmp_path / "v", *names)
    written = build("kinetics-sounds", [csv_file], videos, tmp_path / "clips.csv")
    (clip,) = read_back(written).clips
    assert clip.source == "v/singing/aaaaaaaaaaa_000005_000015.mp4" and clip.end_sec is None
    assert written.num_unmatched == 0 and written.tally.reasons == {"other_class": 1}
    assert written.tally.splits["train"].annotated == 2
    assert [item["problem"] for item in table(written.problems)] == ["missing"]
    (tmp_path / "mine.txt").write_text("abseiling\n")
    with pytest.raises(UserError, match="none of the 3 rows is of a class in the list"):
        build("kinetics", [csv_file], videos, tmp_path / "other.csv",
              class_files={"label": tmp_path / "mine.txt"})  # fmt: skip
