"""What is written anew holds the same records."""

import json

import pytest
from small_shards import (
    CLASSES,
    IN_RECORD_0,
    SHARD_BYTES,
    assert_same_clips,
    clip,
    clips_of,
    files_of,
    flip,
    found_in,
    train_shards,
    write,
)

from avt_jax.data import records
from avt_jax.data.records import writer
from avt_jax.data.shard_tools import rewrite
from avt_jax.errors import UserError


def test_resharding_there_and_back_gives_the_same_bytes(clean, tmp_path):
    small = tmp_path / "small"
    summary = rewrite.reshard(clean, small, max_shard_mb=0.03)
    assert summary.num_clips == {"train": 9, "val": 2} and summary.num_dropped == 0
    assert len(list(small.glob("*.array_record-*"))) > len(list(clean.glob("*.array_record-*")))
    for split in ("train", "val"):
        assert_same_clips(clips_of(small, split), clips_of(clean, split))
    assert found_in(small) == []
    rewrite.reshard(small, tmp_path / "back", max_shard_mb=SHARD_BYTES / 2**20)
    back, original = files_of(tmp_path / "back"), files_of(clean)
    assert set(back) - set(original) == {"failed.csv"}
    assert {name: back[name] for name in original} == original
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "small"]


def test_resharding_stops_at_damage_or_leaves_it_out(folder, tmp_path):
    second = train_shards(folder)[1]
    flip(second, IN_RECORD_0)
    with pytest.raises(UserError, match=rf"record 0 of shard .*{second.name} is damaged"):
        rewrite.reshard(folder, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shards"]
    dropped = []
    summary = rewrite.reshard(
        folder, tmp_path / "out", drop_damaged=True, num_workers=0, on_dropped=dropped.append
    )
    assert [(p.file, p.index) for p in dropped] == [(second.name, 0)]
    assert summary.num_dropped == 1 and summary.num_clips == {"train": 8, "val": 2}
    kept = [record["id"] for record in clips_of(tmp_path / "out")]
    assert kept == [f"clip-{i}" for i in range(9) if i != 3]
    assert found_in(tmp_path / "out") == []


def test_old_schema_is_brought_up_to_date_and_a_newer_one_refused(tmp_path, monkeypatch):
    old = records.record_features({"label": CLASSES}, schema_version="1.0.0")
    encode = old.encode_example
    with monkeypatch.context() as patch:
        patch.setattr(
            old,
            "encode_example",
            lambda record: encode({k: v for k, v in record.items() if k != "flags"}),
        )
        patch.setattr(writer, "record_features", lambda label_sets, **_: old)
        patch.setattr(writer, "written_version", lambda multi_label: "1.0.0")
        write(tmp_path / "old", [clip(1), clip(2)])
    write(tmp_path / "new", [clip(3)])
    assert records.read_info(tmp_path / "old").schema_version == "1.0.0"
    assert found_in(tmp_path / "old") == []
    rewrite.merge(tmp_path / "both", [tmp_path / "old", tmp_path / "new"])
    assert records.read_info(tmp_path / "both").schema_version == records.SCHEMA_VERSION
    assert [record["flags"] for record in clips_of(tmp_path / "both")] == [[], [], ["short"]]
    path = tmp_path / "new" / "metadata.json"
    path.write_text(path.read_text().replace(records.SCHEMA_VERSION, "1.99.0"))
    with pytest.raises(UserError, match="record schema 1.99.0"):
        rewrite.reshard(tmp_path / "new", tmp_path / "out")


def test_merging_keeps_the_order_and_lists_of_failures(clean, tmp_path):
    other = write(tmp_path / "other", {"train": [clip(30)], "test": [clip(31)]})
    (other / "failed.csv").write_text(
        "path,start_sec,end_sec,reason,message\ngone.mp4,0,,missing_file,no such file\n"
    )
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        summary = rewrite.merge(out, [other, clean])
    assert summary.num_clips == {"train": 10, "val": 2, "test": 1}
    assert files_of(outs[0]) == files_of(outs[1])
    assert_same_clips(clips_of(outs[0]), clips_of(other) + clips_of(clean))
    assert_same_clips(clips_of(outs[0], "test"), clips_of(other, "test"))
    assert found_in(outs[0]) == []
    assert (outs[0] / "failed.csv").read_text() == (other / "failed.csv").read_text()


def test_classes_are_united_only_when_asked(clean, tmp_path):
    other = write(tmp_path / "other", [clip(30), clip(32)], classes=("c", "d", "a"))
    with pytest.raises(UserError, match=r"different classes in label set 'label' \('b' is in one"):
        rewrite.merge(tmp_path / "out", [clean, other])
    rewrite.merge(tmp_path / "out", [clean, other], union_classes=True)
    assert records.read_info(tmp_path / "out").label_sets == {"label": ("a", "b", "c", "d")}
    indices = [record["labels"]["label"] for record in clips_of(tmp_path / "out")]
    names = [("a", "b", "c", "d")[index] for index in indices]
    assert names == [CLASSES[i % 3] for i in range(9)] + ["c", "a"]
    turned = write(tmp_path / "turned", [clip(40)], classes=CLASSES[::-1])
    with pytest.raises(UserError, match="their order"):
        rewrite.merge(tmp_path / "out2", [clean, turned])


def test_folders_that_do_not_fit_together(clean, tmp_path):
    for name, value, message in (
        ("frame_rate_hz", 25.0, "8 frames per second .* 25"),
        ("short_side_px", 48, "24 px on the short side .* 48"),
        ("jpeg_quality", 70, "90 as JPEG quality .* 70"),
    ):
        other = write(tmp_path / name, [clip(30)], **{name: value})
        with pytest.raises(UserError, match=message):
            rewrite.merge(tmp_path / "out", [clean, other])
    with pytest.raises(UserError, match="two shard folders or more"):
        rewrite.merge(tmp_path / "out", [clean])
    with pytest.raises(UserError, match="max-shard-mb 0 must be"):
        rewrite.merge(tmp_path / "out", [clean, clean], max_shard_mb=0)
    assert not (tmp_path / "out").exists()


def test_ids_stay_unique(clean, tmp_path):
    other = write(tmp_path / "other", [clip(3)])
    with pytest.raises(UserError, match="both have a clip 'clip-3'.*--prefix-ids"):
        rewrite.merge(tmp_path / "out", [clean, other])
    with pytest.raises(UserError, match="both|two clips"):
        rewrite.merge(tmp_path / "out", [clean, clean])
    with pytest.raises(UserError, match="different names"):
        rewrite.merge(tmp_path / "out", [clean, clean], prefix_ids=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other"]
    rewrite.merge(tmp_path / "out", [clean, other], prefix_ids=True)
    last = clips_of(tmp_path / "out")[-1]
    assert (last["id"], last["source"]) == ("other/clip-3", "other/video-1")
    assert found_in(tmp_path / "out") == []


def test_damage_is_left_out_of_every_split(folder, tmp_path):
    [val] = folder.glob("*-val.array_record-*")
    first, last = train_shards(folder)[0], train_shards(folder)[-1]
    for shard in (val, first, last):
        flip(shard, IN_RECORD_0)
    summary = rewrite.reshard(folder, tmp_path / "out", drop_damaged=True, num_workers=0)
    assert summary.num_clips == {"train": 7, "val": 1} and summary.num_dropped == 3
    # Positions within a shard are not those within its split.
    kept = {
        split: [r["id"] for r in clips_of(tmp_path / "out", split)] for split in ("train", "val")
    }
    assert kept == {"train": [f"clip-{i}" for i in (1, 2, 3, 4, 5, 7, 8)], "val": ["clip-21"]}
    assert summary.num_bytes == sum(
        shard.num_bytes for shard in read_splits(tmp_path / "out").values()
    )


def read_splits(folder):
    """What TFDS says of the splits of a folder."""
    import tensorflow_datasets as tfds

    return dict(tfds.builder_from_directory(folder).info.splits)


def test_nothing_is_written_where_nothing_or_not_all_is_left(folder, tmp_path):
    bad = write(tmp_path / "bad", [clip(index, frames=[b"text"]) for index in range(2)])
    train_shards(folder)[1].unlink()
    for path, message in ((bad, "no usable record is left"), (folder, "is missing")):
        with pytest.raises(UserError, match=message):
            rewrite.reshard(path, tmp_path / "out", drop_damaged=True, num_workers=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "shards"]


def test_a_used_folder_is_left_alone(clean, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        rewrite.reshard(clean, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_repeated_id_within_a_folder_is_dropped_on_request(tmp_path):
    twice = write(tmp_path / "twice", [clip(1), clip(2), clip(3, id="clip-1")])
    with pytest.raises(UserError, match="two clips 'clip-1'.*--drop-damaged keeps the first"):
        rewrite.reshard(twice, tmp_path / "out")
    summary = rewrite.reshard(twice, tmp_path / "out", drop_damaged=True, num_workers=0)
    assert summary.num_dropped == 1
    assert_same_clips(clips_of(tmp_path / "out"), clips_of(twice)[:2])


def test_classes_of_several_label_sets_and_folders_are_united(tmp_path):
    sets = [
        {"verb": ("cut", "mix"), "noun": ("egg",)},
        {"verb": ("mix", "wash"), "noun": ("egg", "pan")},
        {"verb": ("wash", "cut", "peel"), "noun": ("pan",)},
    ]
    folders = []
    for number, label_sets in enumerate(sets):
        folder = tmp_path / f"f{number}"
        folder.mkdir()
        made = writer.RecordWriter(
            folder, label_sets=label_sets, frame_rate_hz=8.0, short_side_px=24
        )
        last = {name: len(classes) - 1 for name, classes in label_sets.items()}
        for index, labels in enumerate(({"verb": 0, "noun": 0}, last)):
            made.add("train", clip(10 * number + index, labels=labels))
        made.close()
        folders.append(folder)
    rewrite.merge(tmp_path / "out", folders, union_classes=True)
    info = records.read_info(tmp_path / "out")
    assert info.label_sets == {"verb": ("cut", "mix", "wash", "peel"), "noun": ("egg", "pan")}
    named = [
        tuple(info.label_sets[name][record["labels"][name]] for name in ("verb", "noun"))
        for record in clips_of(tmp_path / "out")
    ]
    assert named == [
        ("cut", "egg"), ("mix", "egg"), ("mix", "egg"), ("wash", "pan"), ("wash", "pan"),
        ("peel", "pan"),
    ]  # fmt: skip
    other = write(tmp_path / "other", [clip(40)])
    with pytest.raises(UserError, match="has the label sets verb, noun and .* label"):
        rewrite.merge(tmp_path / "out2", [folders[0], other], union_classes=True)


def test_a_class_out_of_range_is_damage(folder, tmp_path):
    path = folder / "metadata.json"
    content = json.loads(path.read_text())
    content["label_sets"]["label"] = ["a", "b"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"record 2 of shard .* \(its label is class 2 of 2\)"):
        rewrite.reshard(folder, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shards"]
