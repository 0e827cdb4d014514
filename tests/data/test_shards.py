"""Damage in shard folders is found and named; what is written anew holds the same records."""

import fcntl
import json
import math
import os
import shutil

import numpy as np
import pytest
import simplejpeg
from clip_records import grey_record, noise_record

from avt_jax.data import records
from avt_jax.data.records import shards
from avt_jax.data.records.writer import RecordWriter
from avt_jax.data.shard_tools import check_record, rewrite, verify
from avt_jax.data.shard_tools import stats as shards_stats
from avt_jax.errors import UserError
from avt_jax.host import new_folder, worker_pool

CLASSES = ("a", "b", "c")
SHARD_BYTES = 56_000  # three of the records below


# Byte positions in such a shard.
IN_RECORD_0, IN_RECORD_2, RECORDS_END = 3000, 45_000, 60_000


def clip(index, **changes):
    """Half a second of noise."""
    record = noise_record(index, num_frames=4, duration_sec=0.5, has_audio=index % 5 != 4)
    return record | {"flags": ["short"] if index % 3 == 0 else []} | changes


def write(folder, made, *, split="train", classes=CLASSES, **options):
    """Writes {split: records} or a list of records of one split."""
    folder.mkdir()
    made = made if isinstance(made, dict) else {split: made}
    options = {"frame_rate_hz": 8.0, "short_side_px": 24, **options}
    writer = RecordWriter(
        folder, label_sets={"label": classes}, max_shard_bytes=SHARD_BYTES, **options
    )
    for name, clips in made.items():
        for record in clips:
            writer.add(name, record)
    writer.close()
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Nine training and two validation clips in several shards."""
    made = {"train": [clip(i) for i in range(9)], "val": [clip(i) for i in (20, 21)]}
    return write(tmp_path_factory.mktemp("clean") / "shards", made)


@pytest.fixture
def folder(clean, tmp_path):
    """A copy to damage."""
    return shutil.copytree(clean, tmp_path / "shards")


def train_shards(folder):
    found = sorted(folder.glob("*-train.array_record-*"))
    assert len(found) > 2
    return found


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 255
    path.write_bytes(bytes(content))


def found_in(folder, **options):
    report = verify.verify(folder, **{"num_workers": 0, **options})
    return [(p.file, p.index, p.message) for p in report.problems]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def clips_of(folder, split="train"):
    return list(records.open_split(folder, split))


def assert_same_clips(one, two):
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_every_record_is_located(clean):
    for split in ("train", "val"):
        for index, record in enumerate(records.open_split(clean, split)):
            name, position = shards.locate(clean, split, index)
            reader = shards.ShardReader(clean / name, records.read_info(clean))
            assert reader.read(position)["id"] == record["id"]
    for split, index in (("train", 9), ("train", -1), ("test", 0)):
        with pytest.raises(UserError, match=f"no record {index}"):
            shards.locate(clean, split, index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clean_folder_is_clean(clean, workers):
    report = verify.verify(clean, num_workers=workers)
    assert report.problems == ()
    assert report.num_records == 11
    assert report.num_shards == len(list(clean.glob("*.array_record-*")))
    assert report.num_bytes == sum(p.stat().st_size for p in clean.glob("*.array_record-*"))


def test_what_extraction_writes_is_clean(request):
    assert found_in(request.getfixturevalue("shards")) == []


def test_flipped_bytes_are_named_and_passed_over(folder):
    first, second, *_ = train_shards(folder)
    flip(first, IN_RECORD_2)
    flip(second, IN_RECORD_0)
    found = found_in(folder)
    assert [(name, index) for name, index, _ in found] == [
        (first.name, None),
        (second.name, None),
        (first.name, 2),
        (second.name, 0),
    ]
    assert "checksum" in found[0][2] and "cannot be read" in found[3][2]
    assert found_in(folder, num_workers=1) == found
    assert [index for _, index, _ in found_in(folder, quick=True)] == [None, None]


def test_no_flipped_byte_goes_unnoticed_or_ends_the_check(folder):
    shard = train_shards(folder)[0]
    good = shard.read_bytes()
    others = 11 - shards.list_shards(folder)[0].num_records
    for seed in range(12):
        # Half of them in the records, half anywhere, which is mostly in what fills up the blocks.
        end = RECORDS_END if seed % 2 else len(good)
        position = int(np.random.default_rng(seed).integers(end))
        flip(shard, position)
        report = verify.verify(folder, num_workers=0)
        assert {p.file for p in report.problems} == {shard.name}, position
        assert report.num_records >= others
        shard.write_bytes(good)


def test_missing_cut_foreign_and_swapped_files(folder):
    first, second, third, *_ = train_shards(folder)
    [val] = folder.glob("*-val.*")
    first.unlink()
    second.write_bytes(second.read_bytes()[:2000])
    shutil.copy(val, third)
    stray = folder / "avt_clips-test.array_record-00000-of-00001"
    shutil.copy(val, stray)
    found = {(name, index): message for name, index, message in found_in(folder)}
    assert "is missing, with 3 records" in found[first.name, None]
    assert "knows no such shard" in found[stray.name, None]
    assert found[third.name, None] == "has 2 records, dataset_info.json says 3"
    report = found_in(folder)
    assert any("cannot be opened" in m for n, _, m in report if n == second.name)
    # The records of the other shards were read all the same.
    assert "is also that of" in found[val.name, 0]


def test_list_of_checksums(folder):
    path = folder / records.CHECKSUM_FILE
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]) + f"{'0' * 64}  other\n")
    messages = [f"{name}: {message}" for name, _, message in found_in(folder, quick=True)]
    assert len(messages) == 2
    assert "names other" in messages[0] and "has no line in SHA256SUMS" in messages[1]
    path.write_text("../x\n")
    assert [m for *_, m in found_in(folder, quick=True)] == ["has a damaged line '../x'"]
    path.unlink()
    [(name, _, message)] = found_in(folder, quick=True)
    assert name == path.name and "No such file" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("features.json", "{", "cannot be read"),
        ("features.json", "[]", "cannot be read"),
        ("features.json", '{"featuresDict": {"features": {"id": {}}}}', "names other fields"),
        ("labels-label.labels.txt", "a\nc\nb\n", "other classes than metadata.json"),
        ("labels-label.labels.txt", None, "cannot be read"),
    ],
)
def test_description_that_contradicts_itself(folder, name, content, expected):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    [(found, index, message)] = found_in(folder)
    assert (found, index) == (name, None) and expected in message


@pytest.mark.parametrize("name", ["dataset_info.json", "metadata.json", "SHA256SUMS"])
def test_damaged_description_is_never_a_crash(folder, name):
    path = folder / name
    good = path.read_bytes()
    noticed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        content = bytearray(good)
        for position in rng.integers(len(good), size=2):
            content[position] = rng.choice(list(b'0189-e."[]{}:,\xff'))
        path.write_bytes(bytes(content))
        try:
            noticed += bool(found_in(folder, quick=seed % 4))
        except UserError:
            noticed += 1
    # Some of the texts in these files mean nothing.
    assert noticed > 20


def test_a_record_that_kills_its_reader_is_found_among_the_others(clean, monkeypatch):
    first = shards.list_shards(clean)[0].path

    def deadly_map(function, inputs, *, num_workers):
        for item in inputs:
            dies = getattr(item, "shard", None) and item.shard.path == first
            dies = dies and getattr(item, "first", -1) <= 1 < getattr(item, "end", -1)
            yield item, worker_pool.WorkerDied("gone") if dies else function(item)

    monkeypatch.setattr(verify, "map_inputs", deadly_map)
    assert found_in(clean) == [(first.name, 1, "takes the process down that reads it")]


def jpeg(height_px, width_px):
    return simplejpeg.encode_jpeg(np.zeros((height_px, width_px, 3), np.uint8))


ROWS = np.zeros((50, 128), np.float16)
BAD_RECORDS = [
    (dict(frames=[]), "has no frames"),
    (dict(frames=[jpeg(24, 32), jpeg(24, 32)[:-40]]), "frame 1 is not a whole JPEG"),
    (dict(frames=[b"text"]), "frame 0 is not a whole JPEG"),
    (dict(frames=[jpeg(24, 32), jpeg(24, 40)]), "frame 1 is 40x24 px, the first 32x24"),
    (dict(frames=[jpeg(32, 40)]), "frames are 40x32 px with a short side of 24"),
    (dict(frames=[jpeg(24, 32)] * 6), "has 6 frames in 0.5 s"),
    (dict(frame_rate_hz=np.float32(25)), "has 25 frames per second, not 8"),
    (dict(fbank=ROWS * np.float16(math.nan)), "fbank is not finite"),
    (dict(fbank=np.concatenate([ROWS, ROWS])), "has 100 fbank rows in 0.5 s"),
    (dict(has_audio=False), "has_audio is False with 50 fbank rows"),
    (dict(fbank=ROWS[:0]), "has_audio is True with 0 fbank rows"),
    (dict(start_sec=5.5), "span is 5.5 to 5.5 s"),
    (dict(start_sec=-1.0, end_sec=-0.5), "span is -1 to -0.5 s"),
    (dict(end_sec=math.inf), "span is 5 to inf s"),
    (dict(flags=["new"]), "unknown flag 'new'"),
    (dict(source=""), "has no source"),
    (dict(id=""), "has no id"),
    (dict(id="good"), "its id 'good' is also that of"),
]


def test_records_that_no_extraction_writes(tmp_path):
    # Their checksums are right: they were written like this.
    made = [clip(0, id="good", frames=[jpeg(20, 24)])]
    made += [clip(0, **{"id": f"bad-{i}", **bad}) for i, (bad, _) in enumerate(BAD_RECORDS)]
    write(tmp_path / "shards", made)
    found = found_in(tmp_path / "shards")
    places = [shards.locate(tmp_path / "shards", "train", 1 + i) for i in range(len(BAD_RECORDS))]
    assert [(name, index) for name, index, _ in found] == places
    for (_, _, message), (_, expected) in zip(found, BAD_RECORDS, strict=True):
        assert expected in message and ";" not in message


def test_a_class_out_of_range(clean):
    # The writer refuses such a record.
    info = records.read_info(clean)
    assert check_record.check_record(clip(1), info) == []
    for value in (-1, 3):
        [complaint] = check_record.check_record(clip(1, labels={"label": value}), info)
        assert complaint == f"its label is class {value} of 3"


def test_verify_needs_a_shard_folder(tmp_path, clean):
    with pytest.raises(UserError, match="no shard folder"):
        verify.verify(tmp_path / "none")
    with pytest.raises(UserError, match="-1 workers"):
        verify.verify(clean, num_workers=-1)


def test_description_that_names_files_elsewhere(folder):
    path = folder / "dataset_info.json"
    content = json.loads(path.read_text())
    content["splits"][0]["filepathTemplate"] = "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="outside of its folder"):
        shards.list_shards(folder)


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
        patch.setattr(records, "record_features", lambda label_sets: old)
        patch.setattr(records, "SCHEMA_VERSION", "1.0.0")
        write(tmp_path / "old", [clip(1), clip(2)])
    write(tmp_path / "new", [clip(3)])
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


def test_statistics_are_those_of_all_values(tmp_path):
    # More records than a worker takes at once; levels from dark to bright, two sizes of frames.
    made = [
        grey_record(i, num_frames=1 + i % 3, duration_sec=0.2, width_px=24 + 8 * (i % 2))
        if i % 4
        else noise_record(i, num_frames=2, duration_sec=0.25, has_audio=False)
        for i in range(37)
    ]
    write(tmp_path / "shards", made)
    stats = shards_stats.measure(tmp_path / "shards", num_workers=0)
    rows = np.concatenate([record["fbank"].astype(np.float64) for record in made])
    pixels = np.concatenate(
        [
            simplejpeg.decode_jpeg(frame, colorspace="RGB").reshape(-1, 3) / 255
            for record in made
            for frame in record["frames"]
        ]
    )
    assert (stats.num_clips, stats.num_with_audio) == (37, 27)
    assert stats.num_fbank_rows == len(rows)
    assert stats.num_frames == sum(len(record["frames"]) for record in made)
    np.testing.assert_allclose(stats.audio_mean, rows.mean(), rtol=1e-12)
    np.testing.assert_allclose(stats.audio_std, rows.std(), rtol=1e-12)
    np.testing.assert_allclose(stats.video_mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats.video_std, pixels.std(axis=0), rtol=1e-12)
    assert shards_stats.measure(tmp_path / "shards", num_workers=2) == stats
    few = shards_stats.measure(tmp_path / "shards", num_workers=0, max_clips=2)
    np.testing.assert_allclose(few.audio_mean, made[18]["fbank"].astype(np.float64).mean())
    assert (few.num_clips, few.num_frames) == (2, 3)


def test_statistics_without_sound_and_of_damaged_records(tmp_path):
    write(tmp_path / "mute", [clip(4)], split="val")
    stats = shards_stats.measure(tmp_path / "mute", "val", num_workers=0)
    assert stats.audio_mean is None and stats.audio_std is None
    assert "audio" not in stats.overrides() and "video_std" in stats.overrides()
    with pytest.raises(UserError, match="no split 'train'"):
        shards_stats.measure(tmp_path / "mute")
    with pytest.raises(UserError, match="0 clips"):
        shards_stats.measure(tmp_path / "mute", "val", max_clips=0)
    write(tmp_path / "bad", [clip(1), clip(2, frames=[b"text"])])
    with pytest.raises(UserError, match="record 1 of shard avt_clips-train.* is damaged"):
        shards_stats.measure(tmp_path / "bad", num_workers=0)


def test_new_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "a" / "out[1]"
    with pytest.raises(ZeroDivisionError), new_folder.new_folder(out) as folder:
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
        with new_folder.new_folder(out) as folder:
            (folder / "file").touch()
    assert sorted(out.parent.iterdir()) == sorted([out, living, foreign])
    assert os.listdir(out) == ["file"]
    with pytest.raises(UserError, match="not an empty folder"), new_folder.new_folder(out):
        pass
    (tmp_path / "text").touch()
    with (
        pytest.raises(UserError, match="cannot create"),
        new_folder.new_folder(tmp_path / "text" / "out"),
    ):
        pass
