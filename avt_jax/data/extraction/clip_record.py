"""One clip of a file as a record: JPEG frames and a log-mel filter bank on one time axis."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from avt_jax.audio.melspec import fbank
from avt_jax.data.manifests.media_files import VIDEO_SUFFIXES
from avt_jax.data.media.container import DecodeError, DecodeReport
from avt_jax.data.media.frames import iter_frames
from avt_jax.data.media.probe import MediaInfo, probe
from avt_jax.data.media.sound import decode_audio
from avt_jax.data.records import FLAG_CODES, HDR, MEL_BINS, NO_VIDEO
from avt_jax.errors import UserError

SAMPLE_RATE_HZ = 16000

# Sound that never gets louder than this, in full scale, is silence: -60 dBFS.
_SILENCE_PEAK = 1e-3
# Squares of the picture are compared by their means, which coding noise hardly changes and a small
# thing that moves does; in pixels, and in grey levels of 255.
_SQUARE_PX = 8
_STILL_LEVELS = 8.0
# A clip is short, or its sound partial, when more than this is missing: a share of what was asked
# for, within limits in seconds.
_MISSING_SHARE = 0.1
_MISSING_SEC = (0.1, 0.5)
# Headers are a little off at the end of many files; more than this is a file that was cut off.
_END_TOLERANCE_SEC = 0.5


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """How clips are stored.

    Attributes:
      frame_rate_hz: in (0, 240], frames kept per second of video.
      short_side_px: in [16, 4096], shorter side of the stored frames; smaller videos are kept as
        they are.
      jpeg_quality: in [1, 100].
      max_clip_sec: > 0, longer clips are refused.
    """

    frame_rate_hz: float = 8.0
    short_side_px: int = 256
    jpeg_quality: int = 90
    max_clip_sec: float = 600.0

    def __post_init__(self) -> None:
        limits = {
            "frame_rate_hz": (0.0, 240.0),
            "short_side_px": (16, 4096),
            "jpeg_quality": (1, 100),
            "max_clip_sec": (0.0, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high or value == 0 or not math.isfinite(value):
                raise UserError(f"{name} {value:g} must be positive and in [{low:g}, {high:g}].")


def make_record(
    path: str | os.PathLike[str],
    start_sec: float | None,
    end_sec: float | None,
    *,
    config: ExtractConfig,
    id: str,
    source: str,
) -> dict[str, Any]:
    """Decodes one clip into a record without labels. Extraction and inference both use it.

    Args:
      path: a video file, or one of sound alone.
      start_sec: >= 0; None is the file's start.
      end_sec: None, or anything past it, is the file's end.
      config: how it is stored.
      id: the record's id.
      source: name of the video the clip is cut from.

    Returns:
      "id", "source"; "frames" list of JPEG bytes, empty for sound alone; "frame_rate_hz"; "fbank"
      float16 [s, 128], without rows when there is no sound; "has_audio"; "start_sec", "end_sec"
      float, the span decoded; "flags" list of str out of records.FLAG_CODES. Where a moving
      picture stops before the sound, the frames stop there too.

    Raises:
      DecodeError: the clip cannot be decoded; its code says why.
    """
    media = probe(path)
    check_picture(path, media)
    start_sec, end_sec, asked_end_sec = _span(path, media, start_sec, end_sec, config)
    report, stillness = DecodeReport(), _Stillness()
    frames = list(_jpeg_frames(path, start_sec, end_sec, config, report, stillness, media))
    mel, loudest = _log_mel(_sound(path, start_sec, end_sec, media, report))
    frames_sec = len(frames) / config.frame_rate_hz
    _check_end(path, end_sec, max(start_sec + frames_sec, report.sound_end_sec), media)
    shown_sec = frames_sec if media.has_video else report.sound_end_sec - start_sec
    has_audio = len(mel) > 0
    if not (frames or has_audio):
        raise DecodeError("unreadable", f"{path} has no picture, and no sound in its span")
    flags = {
        "silent_audio": has_audio and loudest <= _SILENCE_PEAK,
        "partial_audio": has_audio and _is_missing(end_sec - start_sec, report.sound_sec),
        "still_video": stillness.is_still,
        "short": _is_missing(asked_end_sec - start_sec, shown_sec),
        HDR: report.is_hdr,
        "damaged": report.num_damaged > 0 or media.is_broken,
        NO_VIDEO: not media.has_video,
    }
    return {
        "id": id,
        "source": source,
        "frames": frames,
        "frame_rate_hz": np.float32(config.frame_rate_hz),
        "fbank": mel,
        "has_audio": has_audio,
        "start_sec": start_sec,
        "end_sec": end_sec,
        "flags": [code for code in FLAG_CODES if flags[code]],
    }


def check_picture(path: str | os.PathLike[str], media: MediaInfo) -> None:
    """Refuses a file without a picture that is called a video: it has lost what it should have.

    Args:
      path: its suffix says what it should be.
      media: what it holds.

    Raises:
      DecodeError: no_video.
    """
    suffix = Path(path).suffix
    if not media.has_video and suffix.lower() in VIDEO_SUFFIXES:
        raise DecodeError(
            "no_video",
            f"{path} has no picture although it is called {suffix} (if its sound alone is meant, "
            "call it .m4a)",
        )


def _span(
    path: str | os.PathLike[str],
    media: MediaInfo,
    start_sec: float | None,
    end_sec: float | None,
    config: ExtractConfig,
) -> tuple[float, float, float]:
    """(start, end within the file, end asked for) of a clip, or why there is none."""
    if not media.duration_sec > 0:
        raise DecodeError("unreadable", f"nothing in {path} has a length")
    start_sec = 0.0 if start_sec is None else float(start_sec)
    if start_sec >= media.duration_sec:
        raise DecodeError(
            "span_past_end",
            f"the span starts at {start_sec:g} s but {path} ends at {media.duration_sec:.3f} s",
        )
    whole_sec = media.duration_sec + media.missing_sec
    asked_end_sec = whole_sec if end_sec is None else float(end_sec)
    end_sec = min(asked_end_sec, media.duration_sec)
    if end_sec - start_sec > config.max_clip_sec:
        raise DecodeError(
            "too_large",
            f"the clip of {path} lasts {end_sec - start_sec:.1f} s, more than the "
            f"{config.max_clip_sec:g} s allowed",
        )
    return start_sec, end_sec, asked_end_sec


def _check_end(
    path: str | os.PathLike[str], end_sec: float, decoded_end_sec: float, media: MediaInfo
) -> None:
    """Some formats state one length for the whole file and none for its streams."""
    if end_sec - decoded_end_sec > _END_TOLERANCE_SEC:
        raise DecodeError(
            "truncated",
            f"{path} is cut off or damaged: it should last {media.duration_sec:.2f} s but has "
            f"neither pictures nor sound up to {end_sec:.2f} s",
        )


def _is_missing(wanted_sec: float, got_sec: float) -> bool:
    """Whether so much less is there than wanted that it deserves a flag."""
    least_sec, most_sec = _MISSING_SEC
    return wanted_sec - got_sec > min(max(_MISSING_SHARE * wanted_sec, least_sec), most_sec)


class _Stillness:
    """Finds out whether frames, shown one after the other, all show the same picture."""

    def __init__(self) -> None:
        self._num_frames = 0
        self._first_squares: np.ndarray | None = None
        self._has_moved = False

    def add(self, image_hwc: np.ndarray) -> None:
        """Takes the next frame, uint8 [h, w, 3]."""
        self._num_frames += 1
        if self._has_moved:
            return
        squares = _square_means(image_hwc)
        if self._first_squares is None:
            self._first_squares = squares
        elif np.abs(squares - self._first_squares).max() > _STILL_LEVELS:
            self._has_moved = True

    @property
    def is_still(self) -> bool:
        """True for two or more frames that are all alike; a single one may be of anything."""
        return self._num_frames > 1 and not self._has_moved


def _square_means(image_hwc: np.ndarray) -> np.ndarray:
    """Mean brightness of the squares of a picture; what is left at the edges is not looked at."""
    height, width, _ = image_hwc.shape
    side = min(_SQUARE_PX, height, width)
    rows, columns = height // side, width // side
    grey_hw = image_hwc[: rows * side, : columns * side].mean(axis=2, dtype=np.float32)
    return grey_hw.reshape(rows, side, columns, side).mean(axis=(1, 3))


def _sound(
    path: str | os.PathLike[str],
    start_sec: float,
    end_sec: float,
    media: MediaInfo,
    report: DecodeReport,
) -> np.ndarray | None:
    """The clip's waveform, or None when there is no sound at all in its span."""
    if not media.has_audio:
        # Sound that nothing here can decode is lost like sound that is damaged.
        report.num_damaged += media.has_unknown_audio
        return None
    try:
        waveform = decode_audio(
            path, start_sec, end_sec, sample_rate_hz=SAMPLE_RATE_HZ, report=report
        )
    except DecodeError as error:
        if error.reason_code != "unreadable" or not media.has_video:
            raise
        # The pictures are good: a clip without sound is better than none.
        report.num_damaged += 1
        return None
    return waveform if report.sound_sec > 0 else None


def _log_mel(waveform: np.ndarray | None) -> tuple[np.ndarray, float]:
    """(float16 [s, 128] log-mel, loudest sample) of a clip; no rows without sound."""
    # Sound shorter than one window has no row, too: to a model it is the same as none.
    if waveform is None:
        return np.zeros((0, MEL_BINS), np.float16), 0.0
    mel = fbank(waveform, sample_rate_hz=SAMPLE_RATE_HZ).astype(np.float16)
    return mel, float(np.abs(waveform).max(initial=0.0))


def _jpeg_frames(
    path: str | os.PathLike[str],
    start_sec: float,
    end_sec: float,
    config: ExtractConfig,
    report: DecodeReport,
    stillness: _Stillness,
    media: MediaInfo,
) -> Iterator[bytes]:
    """The pictures of a clip; none of sound alone."""
    if not media.has_video:
        return
    last_hwc: np.ndarray | None = None
    jpeg = b""
    for image_hwc in iter_frames(
        path,
        start_sec,
        end_sec,
        frame_rate_hz=config.frame_rate_hz,
        short_side_px=config.short_side_px,
        report=report,
    ):
        stillness.add(image_hwc)
        if image_hwc is not last_hwc:
            last_hwc = image_hwc
            jpeg = simplejpeg.encode_jpeg(
                image_hwc, quality=config.jpeg_quality, colorsubsampling="420", fastdct=True
            )
        yield jpeg
