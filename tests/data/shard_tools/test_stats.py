"""Mean and standard deviation of a split."""

import numpy as np
import pytest
import simplejpeg
from clip_records import grey_record, noise_record
from small_shards import clip, write

from avt_jax.data.shard_tools.stats import measure_split
from avt_jax.errors import UserError


def test_statistics_are_those_of_all_values(tmp_path):
    # More records than a worker takes at once; levels from dark to bright, two sizes of frames.
    made = [
        grey_record(i, num_frames=1 + i % 3, duration_sec=0.2, width_px=24 + 8 * (i % 2))
        if i % 4
        else noise_record(i, num_frames=2, duration_sec=0.25, has_audio=False)
        for i in range(37)
    ]
    write(tmp_path / "shards", made)
    stats = measure_split(tmp_path / "shards", num_workers=0)
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
    assert measure_split(tmp_path / "shards", num_workers=2) == stats
    few = measure_split(tmp_path / "shards", num_workers=0, max_clips=2)
    np.testing.assert_allclose(few.audio_mean, made[18]["fbank"].astype(np.float64).mean())
    assert (few.num_clips, few.num_frames) == (2, 3)


def test_statistics_without_sound_and_of_damaged_records(tmp_path):
    write(tmp_path / "mute", [clip(4)], split="val")
    stats = measure_split(tmp_path / "mute", "val", num_workers=0)
    assert stats.audio_mean is None and stats.audio_std is None
    assert "audio" not in stats.overrides() and "video_std" in stats.overrides()
    with pytest.raises(UserError, match="no split 'train'"):
        measure_split(tmp_path / "mute")
    with pytest.raises(UserError, match="0 clips"):
        measure_split(tmp_path / "mute", "val", max_clips=0)
    write(tmp_path / "bad", [clip(1), clip(2, frames=[b"text"])])
    with pytest.raises(UserError, match="record 1 of shard avt_clips-train.* is damaged"):
        measure_split(tmp_path / "bad", num_workers=0)
