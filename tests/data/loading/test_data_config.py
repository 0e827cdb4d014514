"""Every bad value of the data block is refused by name."""

import dataclasses
import json
import math

import pytest

from avt_jax.data.loading.config import DataConfig
from avt_jax.errors import UserError


def test_defaults_and_derived_length():
    config = DataConfig(path="shards")
    assert config.fbank_frames == 800
    assert DataConfig(path="shards", clip_sec=0.29).fbank_frames == 29


def test_survives_json():
    config = DataConfig(path="shards", crop_scale=(0.5, 1), clip_sec=2)
    again = DataConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config and hash(again) == hash(config)


def test_unknown_field_is_refused():
    with pytest.raises(TypeError, match="clip_secs"):
        DataConfig(path="shards", clip_secs=3.0)


@pytest.mark.parametrize(
    "name,value",
    [
        ("path", ""),
        ("train_split", 3),
        ("num_frames", 0),
        ("num_frames", 2.5),
        ("num_frames", True),
        ("clip_sec", 0.0),
        ("clip_sec", math.nan),
        ("clip_sec", 1e9),
        ("clip_sec", "2"),
        ("frame_size_px", 4),
        ("frame_size_px", 100000),
        ("video_mean", (0.5, 0.5)),
        ("video_mean", 0.5),
        ("video_std", (0.2, 0.2, 0.0)),
        ("audio_mean", math.inf),
        ("audio_std", -1.0),
        ("crop_scale", (0.5, 0.1)),
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.5, 1.5)),
        ("crop_aspect", (0.0, 1.0)),
        ("crop_aspect", (2.0, 1.0)),
        ("flip", 1),
        ("freq_mask_bins", -1),
        ("freq_mask_bins", 129),
        ("time_mask_frames", -1),
        ("num_threads", -1),
        ("num_workers", 1.0),
        ("prefetch", 0),
        ("max_damaged", -1),
        ("max_damaged", 0.5),
    ],
)
def test_bad_value_is_named(name, value):
    with pytest.raises(UserError) as error:
        DataConfig(**{"path": "shards", name: value})
    assert f"config.data.{name}" in str(error.value)
    assert repr(value) in str(error.value)
