"""Which seconds, frames and rows an example holds."""

import dataclasses

import numpy as np
import pytest
import simplejpeg
from clip_records import RATE_HZ, grey_record, noise_record, shown_frames

from avt_jax import axes
from avt_jax.audio.melspec import LOG_FLOOR
from avt_jax.data.loading import sampling
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import NO_VIDEO
from configs import common

CONFIG = DataConfig(path="x", num_frames=4, clip_sec=1.0, frame_size_px=16)
UNMASKED = dataclasses.replace(CONFIG, freq_mask_bins=0, time_mask_frames=0)


def both_ways(record, config=UNMASKED):
    """The evaluation example and a training one."""
    return [
        sampling.eval_example(record, config),
        sampling.train_example(record, config, np.random.default_rng(0)),
    ]


def shown_rows(audio_sf):
    """Which stored spectrogram row each row holds; float16 keeps them apart below 1000."""
    return np.rint(audio_sf[:, 0] * -100).astype(int)


def test_evaluation_takes_the_middle():
    example = sampling.eval_example(grey_record(index=4), CONFIG)
    # The clip is [0.5, 1.5) s of 2 s; the middles of its quarters are 0.625, 0.875, ... s.
    assert shown_frames(example[axes.VIDEO]).tolist() == [5, 7, 9, 11]
    np.testing.assert_array_equal(shown_rows(example[axes.AUDIO]), np.arange(50, 150))
    assert example[axes.VIDEO].shape == (4, 16, 16, 3) and example[axes.VIDEO].dtype == np.uint8
    assert example[axes.AUDIO].shape == (100, 128) and example[axes.AUDIO].dtype == np.float32
    assert example[axes.HAS_AUDIO].dtype == bool and example[axes.HAS_AUDIO]
    assert example[axes.LABELS] == {"label": 1}
    assert example[axes.LABELS]["label"].dtype == example[axes.GROUP].dtype == np.int32
    assert example[axes.ID] == "clip-4"


def test_evaluation_does_not_vary_and_does_not_mirror():
    image_hwc = np.zeros((24, 32, 3), np.uint8)
    image_hwc[:, 16:] = 255
    record = grey_record() | {"frames": [simplejpeg.encode_jpeg(image_hwc)] * 16}
    first, again = (sampling.eval_example(record, CONFIG) for _ in range(2))
    for key in (axes.VIDEO, axes.AUDIO):
        np.testing.assert_array_equal(first[key], again[key])
    assert first[axes.VIDEO][:, :, 0].max() < 30 and first[axes.VIDEO][:, :, -1].min() > 225


def test_a_short_record_is_filled_up():
    for example in both_ways(grey_record(num_frames=4, duration_sec=0.5)):
        assert shown_frames(example[axes.VIDEO]).tolist() == [1, 3, 3, 3]
        np.testing.assert_array_equal(shown_rows(example[axes.AUDIO][:50]), np.arange(50))
        assert (example[axes.AUDIO][50:] == 0).all()


def test_a_clip_without_audio_is_silent_and_unmasked():
    for example in both_ways(grey_record(has_audio=False), CONFIG):
        assert not example[axes.HAS_AUDIO]
        assert (example[axes.AUDIO] == np.float32(LOG_FLOOR)).all()


def test_a_clip_of_sound_alone_shows_the_mean_colour():
    record = grey_record() | {"frames": [], "flags": [NO_VIDEO]}
    config = dataclasses.replace(UNMASKED, video_mean=(0.45, 0.5, 0.25))
    for example, seen in zip(both_ways(record, config), both_ways(grey_record()), strict=True):
        assert not example[axes.HAS_VIDEO] and seen[axes.HAS_VIDEO]
        assert (example[axes.VIDEO] == [115, 128, 64]).all()  # 255 times the mean
        assert example[axes.HAS_AUDIO] and example[axes.AUDIO].shape == (100, 128)
    # The sound is the same with a picture and without one.
    np.testing.assert_array_equal(
        sampling.eval_example(record, config)[axes.AUDIO],
        sampling.eval_example(grey_record(), config)[axes.AUDIO],
    )


@pytest.mark.parametrize(("mean", "level"), [(-3.0, 0), (0.0, 0), (0.6, 153), (7.0, 255)])
def test_a_blank_colour_is_one_that_a_pixel_can_have(mean, level):
    assert sampling.blank_colour((mean,) * 3).tolist() == [level] * 3


def test_training_starts_anywhere_and_keeps_sound_with_picture(rng):
    starts = []
    for _ in range(100):
        example = sampling.train_example(grey_record(), UNMASKED, rng)
        rows = shown_rows(example[axes.AUDIO])
        np.testing.assert_array_equal(rows, np.arange(rows[0], rows[0] + 100))
        # The first frame is the one shown 0.125 s after the clip's start; a start is rounded to
        # a row for the sound, which is 0.04 frames.
        passed_frames = (rows[0] / 100 + 0.125) * RATE_HZ - shown_frames(example[axes.VIDEO])[0]
        assert -0.05 <= passed_frames <= 1.05
        starts.append(rows[0])
    assert min(starts) < 15 and max(starts) > 85  # of 0 to 100


def test_the_generator_decides_everything():
    first, again, other = (
        sampling.train_example(noise_record(0), CONFIG, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    for key in (axes.VIDEO, axes.AUDIO):
        np.testing.assert_array_equal(first[key], again[key])
        assert (first[key] != other[key]).any()


def test_masks_reach_training_examples_only(rng):
    record = grey_record()
    record["fbank"] = record["fbank"] - np.float16(1)  # row 0 holds 0.0, as a mask does
    hidden = [(sampling.train_example(record, CONFIG, rng)[axes.AUDIO] == 0) for _ in range(20)]
    assert any(is_hidden_sf.all(axis=0).any() for is_hidden_sf in hidden)
    assert any(is_hidden_sf.all(axis=1).any() for is_hidden_sf in hidden)
    assert (sampling.eval_example(record, CONFIG)[axes.AUDIO] != 0).all()


@pytest.mark.parametrize("flip,expected", [(False, {False}), (True, {False, True})])
def test_flip_mirrors_some_clips_whole(flip, expected, rng):
    image_hwc = np.zeros((24, 32, 3), np.uint8)
    image_hwc[:, 16:] = 255
    record = grey_record() | {"frames": [simplejpeg.encode_jpeg(image_hwc)] * 16}
    config = dataclasses.replace(UNMASKED, crop_scale=(0.7, 1.0), flip=flip)
    seen = set()
    for _ in range(40):
        video_thwc = sampling.train_example(record, config, rng)[axes.VIDEO].astype(int)
        is_mirrored_t = video_thwc[:, :, 0].mean((1, 2)) > video_thwc[:, :, -1].mean((1, 2))
        assert np.ptp(is_mirrored_t.astype(int)) == 0
        seen.add(bool(is_mirrored_t[0]))
    assert seen == expected


def test_all_frames_of_a_clip_share_one_crop(rng):
    """Every stored frame is the same picture, so every frame of the example must be."""
    record = noise_record(0)
    record["frames"] = [bytes(bytearray(record["frames"][0])) for _ in range(16)]
    for _ in range(10):
        video_thwc = sampling.train_example(record, CONFIG, rng)[axes.VIDEO]
        np.testing.assert_array_equal(video_thwc, np.broadcast_to(video_thwc[:1], video_thwc.shape))


def test_times_on_a_frame_are_not_rounded_to_the_frame_before():
    # Middles at 0.4, 1.0, 1.6, ... s at 10 Hz are frames 4, 10, 16, ...
    config = dataclasses.replace(CONFIG, num_frames=7, clip_sec=4.2)
    expected = [4, 10, 16, 22, 28, 34, 40]
    times_sec = 0.1 + (np.arange(7) + 0.5) * (4.2 / 7)
    assert np.floor(times_sec * 10).tolist() != expected, "in floats some fall just below"
    indices = sampling.frame_indices(0.1, config, frame_rate_hz=10.0, num_stored=50)
    assert indices.tolist() == expected


def test_more_frames_than_stored_repeats_them():
    config = dataclasses.replace(CONFIG, num_frames=8)
    indices = sampling.frame_indices(0.0, config, frame_rate_hz=4.0, num_stored=4)
    assert indices.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_groups_follow_the_source_and_never_change():
    groups = [int(sampling.eval_example(grey_record(i), CONFIG)[axes.GROUP]) for i in range(4)]
    assert groups[0] == groups[1] != groups[2] == groups[3]
    # Written down once: Python's own hash is another number in every process.
    assert sampling.source_group("source-0") == 1261891036


@pytest.mark.parametrize(
    "change,reason",
    [
        ({"frames": []}, "no frames"),
        ({"frames": [b"not a jpeg"]}, "JPEG"),
        ({"frame_rate_hz": 0.0}, "frame rate"),
        ({"frame_rate_hz": float("nan")}, "frame rate"),
        ({"end_sec": float("nan")}, "span"),
        ({"end_sec": 0.0}, "span"),
    ],
)
def test_unusable_records_are_refused(change, reason, rng):
    record = grey_record() | change
    with pytest.raises(ValueError, match=reason):
        sampling.eval_example(record, CONFIG)
    with pytest.raises(ValueError, match=reason):
        sampling.train_example(record, CONFIG, rng)


def test_the_defaults_of_recipes_are_those_of_the_dataclass():
    block = common.get_config().data.to_dict()
    assert dataclasses.asdict(DataConfig(**block)) == block
    assert DataConfig(**block) == DataConfig(path=block["path"])


def test_views_go_from_start_to_end_and_side_to_side():
    image_hwc = np.zeros((24, 48, 3), np.uint8)
    image_hwc[:, 24:] = 200
    record = grey_record() | {"frames": [simplejpeg.encode_jpeg(image_hwc)] * 16}
    config = dataclasses.replace(CONFIG, eval_clips=3, eval_crops=2)
    starts, sides = [], []
    for view in range(config.eval_views):
        example = sampling.eval_example(record, config, view=view)
        starts.append(shown_rows(example[axes.AUDIO])[0])
        sides.append(round(float(example[axes.VIDEO].mean()) / 100))
    # 2 s, clips of 1 s: starts at 0, 0.5 and 1 s, each with the left and the right square.
    assert starts == [0, 0, 50, 50, 100, 100]
    assert sides == [0, 2, 0, 2, 0, 2]
    for view in (-1, 6):
        with pytest.raises(ValueError, match="view"):
            sampling.eval_example(record, config, view=view)


def test_pictures_and_sound_of_a_view_are_of_the_same_span():
    config = dataclasses.replace(CONFIG, eval_clips=5)
    for view in range(5):
        example = sampling.eval_example(grey_record(), config, view=view)
        first_sec = shown_rows(example[axes.AUDIO])[0] / 100
        expected = [int((first_sec + 0.125 + 0.25 * i) * RATE_HZ) for i in range(4)]
        assert shown_frames(example[axes.VIDEO]).tolist() == expected


def test_one_view_is_the_middle_and_so_are_all_of_a_short_record():
    record = noise_record(0)
    for config in (CONFIG, dataclasses.replace(CONFIG, eval_clips=3, eval_crops=3)):
        middle = sampling.eval_example(record, config)
        view = sampling.eval_example(record, config, view=config.eval_views // 2)
        for key in (axes.VIDEO, axes.AUDIO):
            np.testing.assert_array_equal(view[key], middle[key])
    short = noise_record(0, num_frames=4, duration_sec=0.5)
    config = dataclasses.replace(CONFIG, eval_clips=4)
    first, *others = [sampling.eval_example(short, config, view=view) for view in range(4)]
    for other in others:
        np.testing.assert_array_equal(other[axes.VIDEO], first[axes.VIDEO])
        np.testing.assert_array_equal(other[axes.AUDIO], first[axes.AUDIO])
