"""From a stored record to one example: which seconds, which frames, which rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avt_jax import axes
from avt_jax.audio.melspec import LOG_FLOOR
from avt_jax.data.loading import augment_audio, augment_video
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.media.jpeg import Box, frame_shape
from avt_jax.data.records import FBANK_RATE_HZ, MEL_BINS, has_video, tokens_key

AUDIO_PADDING = 0.0
"""Fills spectrogram rows past a record's end, in raw log-mel units, as AST does."""

# Rounding must not push a time that lies on a stored frame to the frame before it.
_EPSILON_FRAMES = 1e-6


def blank_colour(video_mean: Sequence[float]) -> np.ndarray:
    """The colour of a frame where there is no picture: with it the model sees zeros.

    Args:
      video_mean: mean RGB colour that the model subtracts, on the [0, 1] scale.

    Returns:
      uint8 [3].
    """
    return np.clip(np.round(255 * np.asarray(video_mean)), 0, 255).astype(np.uint8)


def empty_arrays(config: DataConfig, count: int) -> dict[str, np.ndarray]:
    """Makes room for the large arrays of `count` examples.

    Args:
      config: the data block.
      count: of the first axis, b.

    Returns:
      {"video": uint8 [b, t, h, w, 3], "audio": float32 [b, s, f]}, of any content; of cached tokens
      both float32 [b, tokens, width].
    """
    if config.is_tokens:
        shapes = {axes.VIDEO: config.video_tokens, axes.AUDIO: config.audio_tokens}
        return {name: np.empty((count, *shape), np.float32) for name, shape in shapes.items()}
    side = config.frame_size_px
    return {
        axes.VIDEO: np.empty((count, config.num_frames, side, side, 3), np.uint8),
        axes.AUDIO: np.empty((count, config.fbank_frames, MEL_BINS), np.float32),
    }


def eval_example(
    record: Mapping[str, Any],
    config: DataConfig,
    *,
    view: int | None = None,
    out: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Makes an example that evaluation sees: the middle of the record, the middle of the frame.

    With several views of a record the spans are spread evenly from its start to its end, and the
    squares along the longer side of the frame.

    Args:
      record: one clip as `avt_jax.data.records.open_split` gives it, or `open_tokens` where
        `config.is_tokens`.
      config: the data block.
      view: in [0, config.eval_views): span view // eval_crops, square view % eval_crops; None =
        the middle of both, whatever the config says.
      out: where to put the large arrays, a row of `empty_arrays`; None = in new ones.

    Returns:
      The keys of `avt_jax.axes` for one example, without "valid": "video" uint8 [t, h, w, 3], all
      `blank_colour` for a clip without a picture; "audio" float32 [s, f] raw log-mel, 0.0 past the
      record's end, log floor for a clip without audio; "has_audio" and "has_video" bool; "labels"
      {label set: int32, [y] for a multi-label set}; "group" int32; "id" str.

    Raises:
      ValueError: the record has lost its frames, or one is not a JPEG.
    """
    if config.is_tokens:
        return _token_example(record, config, 0, out)
    span, square = (0.5, 0.5) if view is None else _view_places(config, view)
    start_sec = span * max(0.0, _duration_sec(record) - config.clip_sec)
    jpegs = _sampled_frames(record, config, start_sec)
    box = augment_video.square_box(*frame_shape(jpegs[0]), square) if jpegs else None
    return _example(record, config, start_sec, jpegs, box, mirrored=False, out=out)


def train_example(
    record: Mapping[str, Any],
    config: DataConfig,
    rng: np.random.Generator,
    *,
    out: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Makes one randomly varied example: random clip, crop, mirroring and spectrogram masks.

    Args:
      record: one clip as `avt_jax.data.records.open_split` gives it.
      config: the data block.
      rng: decides everything random.
      out: where to put the large arrays, a row of `empty_arrays`; None = in new ones.

    Returns:
      As `eval_example`.

    Raises:
      ValueError: the record has lost its frames, or one is not a JPEG.
    """
    if config.is_tokens:
        return _token_example(record, config, _drawn_view(record, config, rng), out)
    start_sec = rng.uniform(0.0, max(0.0, _duration_sec(record) - config.clip_sec))
    jpegs = _sampled_frames(record, config, start_sec)
    box, mirrored = None, False
    if jpegs:
        box = augment_video.random_box(
            *frame_shape(jpegs[0]),
            rng,
            scale=config.crop_scale,
            aspect=config.crop_aspect,
        )
        mirrored = config.flip and bool(rng.integers(2))
    example = _example(record, config, start_sec, jpegs, box, mirrored=mirrored, out=out)
    if record["has_audio"]:
        augment_audio.mask_spectrogram(
            example[axes.AUDIO],
            rng,
            freq_mask_bins=config.freq_mask_bins,
            time_mask_frames=config.time_mask_frames,
        )
    return example


def frame_indices(
    start_sec: float, config: DataConfig, *, frame_rate_hz: float, num_stored: int
) -> np.ndarray:
    """Which stored frames a clip shows.

    The clip is cut into `num_frames` equal parts, and each part shows the frame in its middle: the
    last stored one not later than that. Past the record's end the last frame is held.

    Args:
      start_sec: of the clip, after the record's start; >= 0.
      config: the data block.
      frame_rate_hz: of the stored frames, > 0.
      num_stored: number of stored frames, >= 1.

    Returns:
      int64 [t], ascending, within [0, num_stored).
    """
    step_sec = config.clip_sec / config.num_frames
    time_sec = start_sec + (np.arange(config.num_frames) + 0.5) * step_sec
    index = np.floor(time_sec * frame_rate_hz + _EPSILON_FRAMES).astype(np.int64)
    return np.clip(index, 0, num_stored - 1)


def clip_fbank(
    record: Mapping[str, Any],
    config: DataConfig,
    start_sec: float,
    *,
    out_sf: np.ndarray | None = None,
) -> np.ndarray:
    """The spectrogram of one clip.

    Args:
      record: one clip as `avt_jax.data.records.open_split` gives it.
      config: the data block.
      start_sec: of the clip, after the record's start; >= 0.
      out_sf: where to put the result; None = in a new array.

    Returns:
      float32 [config.fbank_frames, 128] raw log-mel; 0.0 past the record's end; the log floor
      everywhere for a record without audio.
    """
    if out_sf is None:
        out_sf = np.empty((config.fbank_frames, MEL_BINS), np.float32)
    if not record["has_audio"]:
        out_sf[:] = LOG_FLOOR
        return out_sf
    first = round(start_sec * FBANK_RATE_HZ)
    stored_sf = record["fbank"][first : first + config.fbank_frames]
    out_sf[: len(stored_sf)] = stored_sf
    out_sf[len(stored_sf) :] = AUDIO_PADDING
    return out_sf


def source_group(source: str) -> int:
    """A number for a source video, the same on every machine.

    Args:
      source: the record's "source".

    Returns:
      An int in [0, 2**31). Two sources of the same batch share one by accident about once in a
      million batches of 64.
    """
    digest = hashlib.blake2b(source.encode("utf-8"), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


def _view_places(config: DataConfig, view: int) -> tuple[float, float]:
    """Where the span and the square of a view lie, each from 0 (start) to 1 (end)."""
    if not 0 <= view < config.eval_views:
        raise ValueError(f"view {view} is not in [0, {config.eval_views})")
    span, square = divmod(view, config.eval_crops)
    return _place(span, config.eval_clips), _place(square, config.eval_crops)


def _place(number: int, count: int) -> float:
    return number / (count - 1) if count > 1 else 0.5


def _duration_sec(record: Mapping[str, Any]) -> float:
    duration_sec = float(record["end_sec"]) - float(record["start_sec"])
    if not (math.isfinite(duration_sec) and duration_sec >= 0):
        raise ValueError(f"its span is {record['start_sec']} to {record['end_sec']} s")
    return duration_sec


def _sampled_frames(record: Mapping[str, Any], config: DataConfig, start_sec: float) -> list[bytes]:
    """The frames that a clip shows; none of a record without a picture."""
    if not has_video(record):
        return []
    frames, rate_hz = record["frames"], float(record["frame_rate_hz"])
    if not len(frames):
        raise ValueError("it has no frames")
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise ValueError(f"its frame rate is {rate_hz} Hz")
    indices = frame_indices(start_sec, config, frame_rate_hz=rate_hz, num_stored=len(frames))
    return [frames[index] for index in indices]


def _example(
    record: Mapping[str, Any],
    config: DataConfig,
    start_sec: float,
    jpegs: list[bytes],
    box: Box | None,
    *,
    mirrored: bool,
    out: Mapping[str, np.ndarray] | None,
) -> dict[str, Any]:
    """The example of a span and a box; the sound is that of the span."""
    if out is None:
        out = {name: array[0] for name, array in empty_arrays(config, 1).items()}
    if box is None:
        out[axes.VIDEO][:] = blank_colour(config.video_mean)
    else:
        augment_video.decode_boxes(
            jpegs,
            box,
            frame_size_px=config.frame_size_px,
            mirrored=mirrored,
            out_thwc=out[axes.VIDEO],
        )
    clip_fbank(record, config, start_sec, out_sf=out[axes.AUDIO])
    return _with_facts(record, out, has_picture=box is not None)


def _with_facts(
    record: Mapping[str, Any], arrays: Mapping[str, np.ndarray], *, has_picture: bool
) -> dict[str, Any]:
    """The example of a record whose large arrays are made."""
    return {
        axes.VIDEO: arrays[axes.VIDEO],
        axes.AUDIO: arrays[axes.AUDIO],
        axes.HAS_AUDIO: np.bool_(record["has_audio"]),
        axes.HAS_VIDEO: np.bool_(has_picture),
        axes.LABELS: {
            name: np.asarray(value, np.int32)[()] for name, value in record["labels"].items()
        },
        axes.GROUP: np.int32(source_group(record["source"])),
        axes.ID: record["id"],
    }


def _drawn_view(record: Mapping[str, Any], config: DataConfig, rng: np.random.Generator) -> int:
    """One of the varied views, or the unvaried one where there are no others."""
    name = axes.VIDEO if any(config.video_tokens) else axes.AUDIO
    views = len(record[tokens_key(name)])
    return int(rng.integers(1, views)) if views > 1 else 0


def _token_example(
    record: Mapping[str, Any],
    config: DataConfig,
    view: int,
    out: Mapping[str, np.ndarray] | None,
) -> dict[str, Any]:
    """The example of one view of a clip's cached tokens."""
    if out is None:
        out = {name: array[0] for name, array in empty_arrays(config, 1).items()}
    for name, array_nd in out.items():
        if not array_nd.size:
            continue
        stored_nd = record[tokens_key(name)][view]
        if stored_nd.shape != array_nd.shape:
            raise ValueError(
                f"its {name} tokens are {stored_nd.shape}, config.data has {array_nd.shape}"
            )
        array_nd[:] = stored_nd
    return _with_facts(record, out, has_picture=has_video(record))
