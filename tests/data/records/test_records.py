"""Records come back as written; damaged shard folders are told apart."""

import json
import os
import pickle
import shutil

import chex
import numpy as np
import pytest

from avt_jax.data import records
from avt_jax.data.records import writer
from avt_jax.data.records.parse import parse_record
from avt_jax.data.records.writer import RecordWriter
from avt_jax.errors import UserError

LABEL_SETS = {"verb": ("cut", "mix"), "noun": ("bread", "dough, wet", "é")}


def record(index, num_rows=5):
    return {
        "id": f"clip{index}",
        "source": "vidéo.mp4",
        # Bytes that a C string or a NumPy 'S' array would cut off.
        "frames": [b"\xff\xd8\x00\x00", b"", bytes([index])],
        "frame_rate_hz": 8.0,
        "fbank": np.arange(num_rows * 128, dtype=np.float16).reshape(num_rows, 128) * index,
        "has_audio": num_rows > 0,
        "start_sec": 3600.1 + index,
        "end_sec": 3601.1 + index,
        "flags": ["still_video", "short"][: index % 3],
        "labels": {"verb": index % 2, "noun": index % 3},
    }


@pytest.fixture
def folder(tmp_path):
    writer = RecordWriter(
        tmp_path, label_sets=LABEL_SETS, frame_rate_hz=8, short_side_px=48, max_shard_bytes=6000
    )
    for index in range(9):
        writer.add("val" if index % 3 == 0 else "train", record(index))
    writer.add("train", record(9, num_rows=0))
    writer.close()
    return tmp_path


def test_round_trip(folder):
    info = records.read_info(folder)
    assert info == records.RecordsInfo(LABEL_SETS, {"train": 7, "val": 3}, 8.0, 48, 90, "1.1.0")
    assert list(info.splits) == ["train", "val"] and list(info.label_sets) == ["verb", "noun"]
    train = records.open_split(folder, "train")
    read, written = train[1], record(2)
    assert list(read["labels"]) == ["verb", "noun"]
    assert read.keys() == written.keys()
    np.testing.assert_array_equal(read.pop("fbank"), written.pop("fbank"))
    assert read == written
    silent = train[6]
    chex.assert_shape(silent["fbank"], (0, 128))
    assert silent["fbank"].dtype == np.float16 and silent["has_audio"] is False


def test_a_folder_of_schema_1_0_reads_as_without_flags(tmp_path, monkeypatch):
    # Written as it was before there were flags: old features, old version.
    old = records.record_features(LABEL_SETS, schema_version="1.0.0")
    encode = old.encode_example
    without = record(2)
    del without["flags"]
    with monkeypatch.context() as patch:
        patch.setattr(old, "encode_example", lambda r: encode({k: r[k] for k in without}))
        patch.setattr(writer, "record_features", lambda label_sets, **_: old)
        patch.setattr(writer, "written_version", lambda multi_label: "1.0.0")
        made = RecordWriter(tmp_path, label_sets=LABEL_SETS, frame_rate_hz=8, short_side_px=48)
        made.add("train", without)
        made.close()
    assert "flags" not in (tmp_path / "features.json").read_text()
    read = records.open_split(tmp_path, "train")[0]
    assert read.pop("flags") == []
    np.testing.assert_array_equal(read.pop("fbank"), without.pop("fbank"))
    assert read == without
    assert records.read_info(tmp_path).schema_version == "1.0.0"


def test_a_folder_of_a_later_minor_version_still_opens(folder):
    path = folder / "metadata.json"
    path.write_text(path.read_text().replace("1.1.0", "1.2.0"))
    assert records.open_split(folder, "train")[1]["flags"] == ["still_video", "short"]


def test_order_is_kept_over_several_shards(folder):
    assert len([name for name in os.listdir(folder) if "-train." in name]) > 1
    ids = [clip["id"] for clip in records.open_split(folder, "train")]
    assert ids == ["clip1", "clip2", "clip4", "clip5", "clip7", "clip8", "clip9"]


def test_source_can_be_sent_to_another_process(folder):
    source = pickle.loads(pickle.dumps(records.open_split(folder, "val")))
    assert len(source) == 3 and source[np.int64(2)]["id"] == "clip6"
    for index in (3, -1):
        with pytest.raises(IndexError):
            source[index]


def test_tfds_reads_the_folder_on_its_own(folder):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    assert builder.info.splits["train"].num_examples == 7
    assert builder.info.metadata["frame_rate_hz"] == 8.0
    example = builder.as_data_source(split="val")[1]
    assert example["id"] == b"clip3" and example["frames"][0] == b"\xff\xd8\x00\x00"
    assert builder.info.features["labels"]["noun"].names == list(LABEL_SETS["noun"])


def test_missing_folder_split_and_shard(folder, tmp_path):
    with pytest.raises(UserError, match="no shard folder at"):
        records.open_split(tmp_path / "none", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is not a shard folder"):
        records.read_info(tmp_path / "empty")
    with pytest.raises(UserError, match="no split 'vall' .*did you mean 'val'.*train, val"):
        records.open_split(folder, "vall")
    next(folder.glob("*-val.*")).unlink()
    with pytest.raises(UserError, match="is missing from"):
        records.open_split(folder, "val")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("metadata.json", lambda text: text[:20], "is damaged"),
        ("metadata.json", lambda text: "[]", "not one that 'avt extract' wrote"),
        ("metadata.json", lambda text: text.replace("1.1.0", "2.0.0"), "record schema 2.0.0"),
        ("metadata.json", lambda text: text.replace("1.1.0", "1"), "record schema 1,"),
        ("dataset_info.json", lambda text: json.dumps({"splits": [{}]}), "not one that"),
    ],
)
def test_damaged_description(folder, name, change, expected):
    path = folder / name
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=expected):
        records.read_info(folder)


def test_damaged_shards(folder, tmp_path):
    shard = next(folder.glob("*-val.*"))
    good = shard.read_bytes()
    shard.write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match="cut off or damaged"):
        records.open_split(folder, "val")
    shutil.copy(max(folder.glob("*-train.*")), shard)
    with pytest.raises(UserError, match="dataset_info.json says 3"):
        records.open_split(folder, "val")


def test_checksums_notice_one_changed_byte(folder):
    assert records.verify_checksums(folder) == len(list(folder.glob("*.array_record-*")))
    shard = next(folder.glob("*-val.*"))
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(UserError, match="changed after it was written"):
        records.verify_checksums(folder)


@pytest.mark.parametrize(("position", "damaged"), [(200, 0), (2000, 1)])
def test_a_damaged_record_is_an_error_for_that_record_only(folder, position, damaged):
    shard = next(folder.glob("*-val.*"))
    content = bytearray(shard.read_bytes())
    content[position] ^= 255
    shard.write_bytes(bytes(content))
    source = records.open_split(folder, "val")
    for index, name in enumerate(("clip0", "clip3", "clip6")):
        if index == damaged:
            with pytest.raises(UserError, match=f"clip {index} of split 'val' .* is damaged"):
                source[index]
        else:
            assert source[index]["id"] == name


def test_lazy_records_are_the_same(folder):
    train = records.open_split(folder, "train")
    for index in range(len(train)):
        whole, lazy = train[index], train.read_lazily(index)
        assert whole.keys() == lazy.keys() and type(whole["frames"]) is list
        assert len(lazy["frames"]) == len(whole["frames"])
        assert [lazy["frames"][i] for i in range(len(whole["frames"]))] == whole["frames"]
        np.testing.assert_array_equal(lazy.pop("fbank"), whole.pop("fbank"))
        assert list(lazy.pop("frames")) == whole.pop("frames") and lazy == whole
    with pytest.raises(IndexError):
        train.read_lazily(len(train))


def test_our_parser_reads_what_tfds_reads(folder):
    features = records.record_features(LABEL_SETS)
    written = record(5)
    data = features.serialize_example(written)
    ours, theirs = parse_record(data, LABEL_SETS, 128), features.deserialize_example_np(data)
    assert list(ours["frames"]) == list(theirs["frames"]) == written["frames"]
    np.testing.assert_array_equal(ours["fbank"], theirs["fbank"])
    assert ours["labels"] == {name: int(value) for name, value in theirs["labels"].items()}
    assert ours["flags"] == [flag.decode() for flag in theirs["flags"]] == written["flags"]
    for name in ("frame_rate_hz", "has_audio", "start_sec", "end_sec"):
        assert ours[name] == theirs[name]


def test_records_that_lack_something_are_refused():
    features = records.record_features({"verb": ("cut", "mix")})
    data = features.serialize_example(record(1) | {"labels": {"verb": 0}})
    with pytest.raises(ValueError, match="no 'labels/noun'"):
        parse_record(data, LABEL_SETS, 128)
    with pytest.raises(ValueError, match="no record"):
        parse_record(b"\xff\xff\xff", LABEL_SETS, 128)
    with pytest.raises(ValueError, match="it has no 'start_sec'"):
        parse_record(b"", LABEL_SETS, 128)
    with pytest.raises(ValueError):
        parse_record(data, {"verb": ("cut", "mix")}, 127)


def test_labels_alone_are_those_of_the_whole_record(folder):
    source = records.open_split(folder, "train")
    assert [source.read_labels(i) for i in range(len(source))] == [one["labels"] for one in source]
    assert records.label_reader([record(1)])(0) == {"verb": 1, "noun": 1}
    with pytest.raises(IndexError):
        source.read_labels(len(source))
