"""A record from arrays in memory, such as a program has that decodes its own files."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import simplejpeg

from avt_jax.audio.melspec import fbank
from avt_jax.data.records.labels import is_several
from avt_jax.data.records.schema import FBANK_RATE_HZ, MEL_BINS, NO_VIDEO
from avt_jax.errors import UserError, nearest

# Resampling and lossy codecs overshoot full scale a little.
_MAX_PEAK = 2.0


def record_from_arrays(
    frames_thwc: np.ndarray | None,
    *,
    frame_rate_hz: float,
    waveform: np.ndarray | None = None,
    sample_rate_hz: int = 16000,
    fbank_sf: np.ndarray | None = None,
    labels: Mapping[str, Any],
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
      labels: {label set: class index}; of a multi-label set an array [y] of 0 and 1.
      id: of the clip, unique in its split.
      source: the video that it is cut from; clips of one source are never each other's negatives.
        None = a source of its own.
      jpeg_quality: 1 to 100.

    Raises:
      UserError: an array of another shape, type or range, or labels that are no class indices.
    """
    rows_sf = _fbank_rows(id, waveform, sample_rate_hz, fbank_sf)
    check_labels(labels, f"the labels of {id!r}")
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
        "labels": {name: _stored(value) for name, value in labels.items()},
    }


def _stored(label: Any) -> int | np.ndarray:
    return label.astype(np.uint8) if is_several(label) else int(label)


def check_labels(
    labels: Any,
    what: str,
    classes: Mapping[str, int] | None = None,
    multi_label: Collection[str] = (),
) -> None:
    """Makes sure that labels are class indices by label set.

    Args:
      labels: what the user gave.
      what: they are, for the message.
      classes: {label set: number of classes}; None = not known yet.
      multi_label: the label sets of which a clip may have any number of classes.

    Raises:
      UserError: they are not, or a set is missing.
    """
    if not isinstance(labels, Mapping):
        raise UserError(
            f"{what} are a {type(labels).__name__}; give a dict, such as {{'label': 0}}."
        )
    for name in labels if classes is None else classes:
        if name not in labels:
            raise UserError(
                f"{what} have no {name!r}{nearest(name, map(str, labels))}; give a class index for "
                "every label set."
            )
        value = labels[name]
        if name in multi_label or (classes is None and is_several(value)):
            _check_many_hot(value, f"{what}: {name!r}", None if classes is None else classes[name])
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            if not (
                isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iu"
            ):
                raise UserError(
                    f"{what}: {name!r} is {value!r}; give a class index, a whole number."
                )
        number = None if classes is None else classes[name]
        if value < 0 or (number is not None and value >= number):
            most = "up" if number is None else f"to {number - 1}"
            raise UserError(f"{what}: {name!r} is {value}; give a class index from 0 {most}.")


def _check_many_hot(value: Any, what: str, num_classes: int | None) -> None:
    is_hot = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iufb"
    if not is_hot or not np.isin(value, (0, 1)).all() or num_classes not in (None, len(value)):
        raise UserError(
            f"{what} is {value!r:.80}; give a NumPy array of 0 and 1, a number for each of the "
            f"{'' if num_classes is None else f'{num_classes} '}classes."
        )


def _check_frames(id: str, frames_thwc: np.ndarray, frame_rate_hz: float) -> None:
    kind, shape = frames_thwc.dtype, frames_thwc.shape
    if kind != np.uint8 or len(shape) != 4 or shape[3] != 3:
        raise UserError(
            f"the frames of {id!r} are {kind} {shape}; give uint8 [t, h, w, 3]{_way(frames_thwc)}."
        )
    if not len(frames_thwc) or not 0 < frame_rate_hz < math.inf:
        raise UserError(
            f"{id!r} has {len(frames_thwc)} frames at {frame_rate_hz:g} Hz; give at least one, and "
            "a positive rate."
        )


def _way(frames_thwc: np.ndarray) -> str:
    """How frames of another type or order become what they should be, where that is known."""
    shape = frames_thwc.shape
    if len(shape) == 4 and shape[3] != 3 and shape[1] == 3:
        return ": frames.transpose(0, 2, 3, 1)"
    if frames_thwc.dtype.kind == "f" and frames_thwc.size and np.isfinite(frames_thwc).all():
        low, high = frames_thwc.min(), frames_thwc.max()
        if 0 <= low and high <= 1:
            return ": (255 * frames).round().astype('uint8')"
        if 0 <= low and high <= 255:
            return ": frames.round().astype('uint8')"
        return ", levels from 0 to 255 as they are before any normalisation"
    return ""


def _fbank_rows(
    id: str, waveform: np.ndarray | None, sample_rate_hz: int, fbank_sf: np.ndarray | None
) -> np.ndarray:
    """float16 [s, 128] of a waveform or of rows that are there; no rows without either."""
    if waveform is not None and fbank_sf is not None:
        raise UserError(f"{id!r} has a waveform and a filter bank; give one of them.")
    if waveform is not None:
        waveform = np.asarray(waveform)
        _check_waveform(id, waveform, sample_rate_hz)
        return fbank(waveform, sample_rate_hz=sample_rate_hz).astype(np.float16)
    if fbank_sf is None:
        return np.zeros((0, MEL_BINS), np.float16)
    with np.errstate(over="ignore"):
        rows_sf = np.asarray(fbank_sf).astype(np.float16)
    if rows_sf.ndim != 2 or rows_sf.shape[1] != MEL_BINS or not np.isfinite(rows_sf).all():
        way = ": fbank.T" if rows_sf.ndim == 2 and rows_sf.shape[0] == MEL_BINS else ", finite"
        way = ", finite" if rows_sf.shape[1:] == (MEL_BINS,) else way
        raise UserError(f"the filter bank of {id!r} is {rows_sf.shape}; give [s, {MEL_BINS}]{way}.")
    return rows_sf


def _check_waveform(id: str, waveform: np.ndarray, sample_rate_hz: int) -> None:
    start = f"the waveform of {id!r}"
    if waveform.ndim != 1:
        short = int(np.argmin(waveform.shape)) if waveform.ndim == 2 else None
        way = "" if short is None else f": waveform.mean({short})"
        raise UserError(f"{start} has the shape {waveform.shape}; give [samples], mono{way}.")
    if waveform.dtype.kind != "f":
        way = ": waveform / 32768" if waveform.dtype == np.int16 else ""
        raise UserError(f"{start} is of type {waveform.dtype}; give floats in [-1, 1]{way}.")
    if not np.isfinite(waveform).all():
        raise UserError(f"{start} holds values that are not finite; give floats in [-1, 1].")
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak > _MAX_PEAK:
        way = ": waveform / 32768" if peak <= 32768 else ""
        raise UserError(f"{start} reaches {peak:g}; give floats in [-1, 1]{way}.")
    if not 1000 <= sample_rate_hz < math.inf:
        raise UserError(f"{start} has a sample rate of {sample_rate_hz:g} Hz; give 1000 or more.")
