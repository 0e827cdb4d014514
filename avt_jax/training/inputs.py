"""What a model reads: its shape and normalisation by the `data` block, and own arrays checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from avt_jax import axes
from avt_jax.audio.melspec import LOG_FLOOR
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import FBANK_RATE_HZ, MEL_BINS
from avt_jax.errors import UserError, first_line, nearest
from avt_jax.models.forward import Normalisation
from avt_jax.models.inputs import InputSpec


def normalisation(data: DataConfig) -> Normalisation:
    """The normalisation constants of a `data` block."""
    means = (data.video_mean, data.video_std, data.audio_mean, data.audio_std)
    return Normalisation(*means, is_tokens=data.is_tokens)


def input_spec(data: DataConfig) -> InputSpec:
    """The shape of a clip as a `data` block describes it."""
    clip = (data.num_frames, data.frame_size_px, data.fbank_frames, MEL_BINS)
    return InputSpec(*clip, data.video_tokens, data.audio_tokens)


def checked_inputs(batch: Mapping[str, Any], spec: InputSpec) -> dict[str, np.ndarray]:
    """What the model reads of a batch that the user's program has made.

    Args:
      batch: "video" uint8 [b, t, h, w, 3] and "audio" [b, s, f] raw log-mel. Without "has_audio"
        every clip has sound unless all of its bins are the log floor; without "has_video" every
        clip has a picture.
      spec: shape of what the model reads.

    Returns:
      {"video": uint8, "audio": float32, "has_audio": bool, "has_video": bool}.

    Raises:
      UserError: a key is missing, or an array of another shape, type or range; says how to make it
        what it should be.
    """
    video, audio = (as_array(given(batch, name), repr(name)) for name in (axes.VIDEO, axes.AUDIO))
    _check_video(video, spec)
    _check_audio_shape(audio, spec)
    if len(audio) != len(video):
        raise UserError(f"a batch has 'video' of {len(video)} clips and 'audio' of {len(audio)}.")
    if not len(video):
        raise UserError("a batch has no clips; give one at least.")
    audio = _as_log_mel(audio)
    if axes.HAS_AUDIO in batch:
        has_audio = flags(batch, axes.HAS_AUDIO, len(video))
    else:
        has_audio = np.asarray((audio > LOG_FLOOR + 1e-3).any((1, 2)))
    has_video = np.ones(len(video), bool)
    if axes.HAS_VIDEO in batch:
        has_video = flags(batch, axes.HAS_VIDEO, len(video))
    return {
        axes.VIDEO: video,
        axes.AUDIO: audio,
        axes.HAS_AUDIO: has_audio,
        axes.HAS_VIDEO: has_video,
    }


def given(batch: Any, name: str) -> Any:
    """A value of a batch.

    Raises:
      UserError: the batch is no dictionary, or has no such key.
    """
    if not isinstance(batch, Mapping):
        raise UserError(
            f"a batch is a {type(batch).__name__}; give a dict with 'video', 'audio' and 'labels'."
        )
    if name not in batch:
        known = ", ".join(repr(str(key)) for key in batch) or "nothing"
        unknown = [str(key) for key in batch if key not in axes.DEVICE_KEYS]
        raise UserError(f"a batch has no {name!r}{nearest(name, unknown)}; it has {known}.")
    return batch[name]


def as_array(value: Any, what: str) -> np.ndarray:
    """An array of numbers, from an array of any library or from lists.

    Args:
      value: what the user gave.
      what: it is in a batch, for the message.

    Raises:
      UserError: it is none.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(value).__name__
        raise UserError(
            f"a batch's {what} is a {kind} that makes no array ({first_line(error)}); give one "
            "NumPy array, all clips of one shape."
        ) from error
    if array.dtype.kind not in "biuf":
        raise UserError(
            f"a batch's {what} is of type {array.dtype}; give one NumPy array of numbers."
        )
    return array


def flags(batch: Mapping[str, Any], name: str, count: int) -> np.ndarray:
    """[b] bool of a batch.

    Raises:
      UserError: it is of another shape or type.
    """
    array = as_array(batch[name], repr(name))
    if array.shape != (count,):
        raise UserError(f"a batch's {name!r} has the shape {array.shape}; give ({count},).")
    if array.dtype != bool:
        raise UserError(
            f"a batch's {name!r} is of type {array.dtype}; give bool: {name}.astype(bool)."
        )
    return array


def _check_video(video: np.ndarray, spec: InputSpec) -> None:
    side, shape = spec.frame_size_px, video.shape
    wanted = (shape[0] if shape else 1, spec.num_frames, side, side, 3)
    start = f"a batch's 'video' has the shape {shape}"
    end = f"give [b, t, h, w, 3], which config.data makes {wanted}"
    if shape == wanted[1:]:
        raise UserError(f"{start}, without an axis for the clips; {end}: video[None].")
    if len(shape) != 5:
        raise UserError(f"{start}; {end}.")
    if shape[4] != 3 and shape[2] == 3:
        raise UserError(f"{start}, [b, t, 3, h, w]; {end}: video.transpose(0, 1, 3, 4, 2).")
    if shape[4] != 3 and shape[1] == 3:
        raise UserError(f"{start}, [b, 3, t, h, w]; {end}: video.transpose(0, 2, 3, 4, 1).")
    if shape[4] != 3:
        raise UserError(f"{start}, with {shape[4]} channels; {end}, RGB.")
    if shape[1] != spec.num_frames:
        raise UserError(
            f"{start}, {shape[1]} frames a clip, and config.data.num_frames is {spec.num_frames}; "
            "make them equal."
        )
    if shape != wanted:
        raise UserError(
            f"{start}, frames of {shape[2]} x {shape[3]} px, and config.data.frame_size_px is "
            f"{side}; make them equal, frames are square."
        )
    if video.dtype != np.uint8:
        raise UserError(f"a batch's 'video' is of type {video.dtype}{_to_levels(video)}.")


def _to_levels(video: np.ndarray) -> str:
    """How to make uint8 RGB levels of what was given."""
    if video.dtype == bool or not video.size:
        return "; give uint8 RGB levels, 0 to 255"
    if not np.isfinite(video).all():
        return " and not finite; give uint8 RGB levels, 0 to 255"
    low, high = float(video.min()), float(video.max())
    start = f" with values from {low:g} to {high:g}; give uint8 RGB levels, 0 to 255"
    if low < 0 or high > 255:
        return f"{start}, as they are before any normalisation: the model does that itself"
    if video.dtype.kind != "f":
        return f"{start}: video.astype('uint8')"
    if high <= 1:
        return f"{start}: (255 * video).round().astype('uint8')"
    return f"{start}: video.round().astype('uint8')"


def _check_audio_shape(audio: np.ndarray, spec: InputSpec) -> None:
    rows, bins, shape = spec.fbank_frames, spec.mel_bins, audio.shape
    wanted = (shape[0] if shape else 1, rows, bins)
    start = f"a batch's 'audio' has the shape {shape}"
    end = f"give [b, s, f], which config.data makes {wanted}"
    if shape == wanted[1:]:
        raise UserError(f"{start}, without an axis for the clips; {end}: audio[None].")
    if len(shape) == 2:
        raise UserError(f"{start}; {end}: of waveforms, avt_jax.fbank of each.")
    if len(shape) != 3:
        raise UserError(f"{start}; {end}.")
    if shape[2] != bins and shape[1] == bins:
        raise UserError(f"{start}, [b, f, s]; {end}: audio.transpose(0, 2, 1).")
    if shape[2] != bins:
        raise UserError(f"{start}, with {shape[2]} mel bins; {end}: see avt_jax.fbank.")
    if shape[1] != rows:
        raise UserError(
            f"{start}, {shape[1]} rows a clip, and config.data.clip_sec asks for {rows}, "
            f"{FBANK_RATE_HZ:g} a second; make them equal."
        )


def _as_log_mel(audio: np.ndarray) -> np.ndarray:
    if audio.dtype.kind != "f":
        raise UserError(
            f"a batch's 'audio' is of type {audio.dtype}; give raw log-mel as float32, such as "
            "avt_jax.fbank makes."
        )
    with np.errstate(over="ignore"):
        audio = audio.astype(np.float32)
    bad_b = ~np.isfinite(audio).all((1, 2))
    if bad_b.any():
        clip = int(bad_b.argmax())
        found = audio[clip][~np.isfinite(audio[clip])][0]
        raise UserError(
            f"a batch's 'audio' of clip {clip} holds {found}; give finite values, digital silence "
            f"is {LOG_FLOOR:.4g}."
        )
    return audio
