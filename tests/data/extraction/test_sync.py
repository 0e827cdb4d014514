"""Flash and beep at the same time: they are still together in the record and in the example."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
from media_files import write_clip

from avt_jax.audio.melspec import HOP_SEC, WINDOW_SEC
from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.loading import sampling
from avt_jax.data.loading.config import DataConfig

FRAME_SEC = 0.04
AUDIO_RATE_HZ = 48000
CLIP_SEC = 5.0
EVENT_SEC = 0.12  # how long the picture is white and the tone sounds

AUDIO_STARTS_SEC = (-0.2, 0.0, 0.2, 0.5)


def frame_times_sec(is_variable):
    if not is_variable:
        return np.arange(round(CLIP_SEC / FRAME_SEC)) * FRAME_SEC
    steps_sec = np.random.default_rng(5).choice([0.017, 0.033, 0.05, 0.091], 400)
    times_sec = np.concatenate([[0.0], np.cumsum(steps_sec)])
    return times_sec[times_sec < CLIP_SEC]


def events_sec(times_sec):
    """Each event starts with a frame; none in the first 0.6 s, where the sound may not be there."""
    wanted_sec = np.arange(0.75, CLIP_SEC - 0.4, 0.61)
    return times_sec[np.searchsorted(times_sec, wanted_sec)]


def beeps(starts_sec, audio_start_sec):
    """float32 [1, samples] of a stream that starts at audio_start_sec on the pictures' axis."""
    times = audio_start_sec + np.arange(round(CLIP_SEC * AUDIO_RATE_HZ)) / AUDIO_RATE_HZ
    is_on = ((times[:, None] >= starts_sec) & (times[:, None] < starts_sec + EVENT_SEC)).any(axis=1)
    return (0.5 * np.sin(2 * np.pi * 1000 * times) * is_on)[None].astype(np.float32)


def clip(folder, suffix, is_variable, audio_start_sec):
    times_sec = frame_times_sec(is_variable)
    starts_sec = events_sec(times_sec)
    since_sec = times_sec[:, None] - starts_sec
    is_white = ((since_sec > -1e-6) & (since_sec < EVENT_SEC)).any(axis=1)
    frames_thwc = np.where(is_white[:, None, None, None], 235, 20).astype(np.uint8)
    return write_clip(
        folder / f"{suffix}-{is_variable}-{audio_start_sec}.{suffix}",
        np.broadcast_to(frames_thwc, (len(times_sec), 48, 48, 3)),
        times_sec=times_sec,
        waves=[beeps(starts_sec, audio_start_sec)],
        sample_rate_hz=AUDIO_RATE_HZ,
        audio_start_sec=audio_start_sec,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sync")


def beep_times_sec(fbank_sf):
    """A window half filled by the tone has a quarter of its power."""
    loudness_s = fbank_sf.astype(np.float64).max(axis=1)
    row_sec = np.arange(len(loudness_s)) * HOP_SEC + WINDOW_SEC / 2
    level = loudness_s.max() + np.log(0.25)
    up = np.flatnonzero((loudness_s[:-1] < level) & (loudness_s[1:] >= level))
    share = (level - loudness_s[up]) / (loudness_s[up + 1] - loudness_s[up])
    return row_sec[up] + share * HOP_SEC


def offsets_sec(brightness_t, frame_sec, fbank_sf):
    """How far picture and sound are apart at each event, [n, 2] in seconds.

    Column 0: by how much the last dark frame comes after the beep (> 0, the picture is late) or the
    first white one before it (< 0); 0 when the beep starts between the two, which is all that
    frames can tell. Column 1: the middle between these two frames, minus the beep; its mean shows
    a shift that is the same for all events.
    """
    first = 1 + np.flatnonzero((brightness_t[:-1] <= 128) & (brightness_t[1:] > 128))
    # An event at the edge of an example may be seen but not heard.
    first = first[(frame_sec[first] > 0.1) & (frame_sec[first] < frame_sec[-1] - 0.1)]
    beeps_sec = beep_times_sec(fbank_sf)
    rows = []
    for dark_sec, white_sec in zip(frame_sec[first - 1], frame_sec[first], strict=True):
        middle_sec = (dark_sec + white_sec) / 2
        beep_sec = beeps_sec[np.abs(beeps_sec - middle_sec).argmin()]
        wrong_sec = max(0.0, dark_sec - beep_sec) + min(0.0, white_sec - beep_sec)
        rows.append((wrong_sec, middle_sec - beep_sec))
    return rows


def record_of(path, start_sec=None, end_sec=None):
    config = ExtractConfig(frame_rate_hz=1 / FRAME_SEC, short_side_px=48)
    return make_record(path, start_sec, end_sec, config=config, id="x", source="x") | {"labels": {}}


def offsets_in_record(record):
    images = [simplejpeg.decode_jpeg(jpeg) for jpeg in record["frames"]]
    brightness_t = np.array([image.mean() for image in images])
    return offsets_sec(brightness_t, np.arange(len(images)) * FRAME_SEC, record["fbank"])


def offsets_in_examples(record, num_examples):
    """One evaluation example, and training examples that start anywhere."""
    config = DataConfig(
        path="unused",
        num_frames=50,
        clip_sec=50 * FRAME_SEC,
        frame_size_px=16,
        crop_scale=(1.0, 1.0),
        crop_aspect=(1.0, 1.0),
        freq_mask_bins=0,
        time_mask_frames=0,
    )
    rng = np.random.default_rng(0)
    examples = [sampling.eval_example(record, config)]
    examples += [sampling.train_example(record, config, rng) for _ in range(num_examples)]
    frame_sec = (np.arange(config.num_frames) + 0.5) * FRAME_SEC
    return [
        offset
        for example in examples
        for offset in offsets_sec(
            example["video"].mean(axis=(1, 2, 3)), frame_sec, example["audio"]
        )
    ]


@pytest.mark.parametrize("audio_start_sec", AUDIO_STARTS_SEC)
@pytest.mark.parametrize("is_variable", [False, True], ids=["constant", "variable"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_flash_and_beep_stay_together(folder, suffix, is_variable, audio_start_sec):
    path = clip(folder, suffix, is_variable, audio_start_sec)
    record = record_of(path)
    stored = np.array(offsets_in_record(record))
    assert len(stored) == 7
    assert np.abs(stored[:, 0]).max() <= 0.005  # half a row of the spectrogram
    # A clip from the middle is reached by seeking, in pictures and sound each on its own.
    middle = np.array(offsets_in_record(record_of(path, 1.313, 4.2)))
    assert 4 <= len(middle) <= 5
    assert np.abs(middle[:, 0]).max() <= 0.005
    sampled = np.array(offsets_in_examples(record, 12))
    assert len(sampled) > 15
    assert np.abs(sampled[:, 0]).max() <= FRAME_SEC
    assert np.abs(sampled[:, 1].mean()) <= FRAME_SEC
