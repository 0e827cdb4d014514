"""A record from arrays in memory, such as a program has that decodes its own files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg

from avt_jax.audio.melspec import fbank
from avt_jax.data.records.schema import FBANK_RATE_HZ, MEL_BINS, NO_VIDEO
from avt_jax.errors import UserError


def record_from_arrays(
    frames_thwc: np.ndarray | None,
    *,
    frame_rate_hz: float,
    waveform: np.ndarray | None = None,
    sample_rate_hz: int = 16000,
    fbank_sf: np.ndarray | None = None,
    labels: Mapping[str, int],
    id: str,
    source: str | None = None,
    jpeg_quality: int = 90,
) -> dict[str, Any]:
    """Makes what `records.open_split` gives for one clip.

    Frames are stored as JPEG, as an extraction does: the same crops and sizes are read from both.

    Args:
      frames_thwc: uint8 [t, h, w, 3] RGB, at least one frame; None = sound alone.
      frame_rate_hz: > 0, frames per second.
      waveform: [samples] in [-1, 1], mono; None = no sound, unless `fbank_sf` is given.
      sample_rate_hz: of the waveform.
      fbank_sf: [s, 128] raw log-mel, 100 rows a second (see `avt_jax.fbank`), in place of a
        waveform.
      labels: {label set: class index}.
      id: of the clip, unique in its split.
      source: the video that it is cut from; clips of one source are never each other's negatives.
        None = a source of its own.
      jpeg_quality: 1 to 100.

    Raises:
      UserError: an array of another shape or type.
    """
    rows_sf = _fbank_rows(id, waveform, sample_rate_hz, fbank_sf)
    flags = []
    if frames_thwc is None:
        if not len(rows_sf):
            raise UserError(f"{id!r} has neither frames nor sound; give one of them.")
        frames_thwc, flags = np.empty((0, 1, 1, 3), np.uint8), [NO_VIDEO]
    else:
        frames_thwc = np.asarray(frames_thwc)
        _check_frames(id, frames_thwc, frame_rate_hz)
    return {
        "id": id,
        "source": id if source is None else source,
        "frames": [
            simplejpeg.encode_jpeg(
                np.ascontiguousarray(frame_hwc), quality=jpeg_quality, colorsubsampling="420"
            )
            for frame_hwc in frames_thwc
        ],
        "frame_rate_hz": np.float32(frame_rate_hz),
        "fbank": rows_sf,
        "has_audio": len(rows_sf) > 0,
        "start_sec": 0.0,
        "end_sec": max(len(frames_thwc) / frame_rate_hz, len(rows_sf) / FBANK_RATE_HZ),
        "flags": flags,
        "labels": {name: int(value) for name, value in labels.items()},
    }


def _check_frames(id: str, frames_thwc: np.ndarray, frame_rate_hz: float) -> None:
    if frames_thwc.dtype != np.uint8 or frames_thwc.ndim != 4 or frames_thwc.shape[3] != 3:
        raise UserError(
            f"the frames of {id!r} are {frames_thwc.dtype} {frames_thwc.shape}; give uint8 "
            "[t, h, w, 3]."
        )
    if not len(frames_thwc) or not frame_rate_hz > 0:
        raise UserError(
            f"{id!r} has {len(frames_thwc)} frames at {frame_rate_hz:g} Hz; give at least one, and "
            "a positive rate."
        )


def _fbank_rows(
    id: str, waveform: np.ndarray | None, sample_rate_hz: int, fbank_sf: np.ndarray | None
) -> np.ndarray:
    """float16 [s, 128] of a waveform or of rows that are there; no rows without either."""
    if waveform is not None and fbank_sf is not None:
        raise UserError(f"{id!r} has a waveform and a filter bank; give one of them.")
    if waveform is not None:
        return fbank(np.asarray(waveform), sample_rate_hz=sample_rate_hz).astype(np.float16)
    if fbank_sf is None:
        return np.zeros((0, MEL_BINS), np.float16)
    rows_sf = np.asarray(fbank_sf, np.float16)
    if rows_sf.ndim != 2 or rows_sf.shape[1] != MEL_BINS or not np.isfinite(rows_sf).all():
        raise UserError(
            f"the filter bank of {id!r} is {rows_sf.shape}; give [s, {MEL_BINS}], finite."
        )
    return rows_sf
