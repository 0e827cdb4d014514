"""Damage in shard folders is found and named."""

import math
import shutil

import numpy as np
import pytest
import simplejpeg
from small_shards import (
    IN_RECORD_0,
    IN_RECORD_2,
    RECORDS_END,
    clip,
    flip,
    found_in,
    train_shards,
    write,
)

from avt_jax.data import records
from avt_jax.data.records import shards
from avt_jax.data.shard_tools import verify
from avt_jax.data.shard_tools.check_record import check_record
from avt_jax.data.shard_tools.verify import verify_folder
from avt_jax.errors import UserError
from avt_jax.host import worker_pool


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clean_folder_is_clean(clean, workers):
    report = verify_folder(clean, num_workers=workers)
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
        report = verify_folder(folder, num_workers=0)
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

    monkeypatch.setattr(verify, "ordered_map", deadly_map)
    assert found_in(clean) == [(first.name, 1, "takes the process down that reads it")]


def jpeg(height_px, width_px):
    return simplejpeg.encode_jpeg(np.zeros((height_px, width_px, 3), np.uint8))


ROWS = np.zeros((50, 128), np.float16)
BAD_RECORDS = [
    (dict(frames=[]), "has no frames"),
    (dict(frames=[jpeg(24, 32), jpeg(24, 32)[:-40]]), "frame 1 is not a whole JPEG"),
    (dict(flags=["no_video"]), "has 4 frames and the flag no_video"),
    (
        dict(frames=[], flags=["no_video"], has_audio=False, fbank=ROWS[:0]),
        "has neither frames nor sound",
    ),
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
    assert check_record(clip(1), info) == []
    for value in (-1, 3):
        [complaint] = check_record(clip(1, labels={"label": value}), info)
        assert complaint == f"its label is class {value} of 3"


def test_verify_needs_a_shard_folder(tmp_path, clean):
    with pytest.raises(UserError, match="no shard folder"):
        verify_folder(tmp_path / "none")
    with pytest.raises(UserError, match="num_workers is -1"):
        verify_folder(clean, num_workers=-1)
