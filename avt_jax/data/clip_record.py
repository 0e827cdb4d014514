"""One clip of a video file as a record: JPEG frames and a log-mel filter bank on one time axis."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import simplejpeg

from avt_jax.audio.melspec import fbank
from avt_jax.data import decode
from avt_jax.errors import UserError

SAMPLE_RATE_HZ = 16000

# Long clips are decoded in pieces: ten minutes of raw frames would fill two gigabytes.
_PIECE_FRAMES = 256


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

    def __post_init__(self):
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
    path: str | os.PathLike,
    start_sec: float | None,
    end_sec: float | None,
    *,
    config: ExtractConfig,
    id: str,
    source: str,
) -> dict[str, Any]:
    """Decodes one clip into a record without labels. Extraction and inference both use it.

    Args:
      path: a video file.
      start_sec: >= 0; None is the file's start.
      end_sec: None, or anything past it, is the file's end.
      config: how it is stored.
      id: the record's id.
      source: name of the video the clip is cut from.

    Returns:
      "id", "source"; "frames" list of JPEG bytes; "frame_rate_hz"; "fbank" float16 [s, 128],
      without rows when there is no sound; "has_audio"; "start_sec", "end_sec" float, the span
      decoded. Where the picture stops before the sound, the frames stop there too.

    Raises:
      DecodeError: the clip cannot be decoded; its code says why.
    """
    media = decode.probe(path)
    if not media.has_video:
        raise decode.DecodeError("no_video", f"{path} has no video stream")
    start_sec = 0.0 if start_sec is None else float(start_sec)
    if start_sec >= media.duration_sec:
        raise decode.DecodeError(
            "span_past_end",
            f"the span starts at {start_sec:g} s but {path} ends at {media.duration_sec:.3f} s",
        )
    end_sec = media.duration_sec if end_sec is None else min(float(end_sec), media.duration_sec)
    if end_sec - start_sec > config.max_clip_sec:
        raise decode.DecodeError(
            "too_large",
            f"the clip of {path} lasts {end_sec - start_sec:.1f} s, more than the "
            f"{config.max_clip_sec:g} s allowed",
        )
    frames = list(_jpeg_frames(path, start_sec, end_sec, config))
    mel = np.zeros((0, 128), np.float16)
    if media.has_audio:
        waveform = decode.decode_audio(path, start_sec, end_sec, sample_rate_hz=SAMPLE_RATE_HZ)
        if waveform is not None:
            mel = fbank(waveform, sample_rate_hz=SAMPLE_RATE_HZ).astype(np.float16)
    return {
        "id": id,
        "source": source,
        "frames": frames,
        "frame_rate_hz": np.float32(config.frame_rate_hz),
        "fbank": mel,
        # Sound shorter than one window has no row: to a model it is the same as none.
        "has_audio": len(mel) > 0,
        "start_sec": start_sec,
        "end_sec": end_sec,
    }


def _jpeg_frames(
    path: str | os.PathLike, start_sec: float, end_sec: float, config: ExtractConfig
) -> Iterator[bytes]:
    piece_sec = _PIECE_FRAMES / config.frame_rate_hz
    for piece in range(math.ceil((end_sec - start_sec) / piece_sec)):
        first_sec = start_sec + piece * piece_sec
        try:
            video_thwc = decode.decode_frames(
                path,
                first_sec,
                min(first_sec + piece_sec, end_sec),
                frame_rate_hz=config.frame_rate_hz,
                short_side_px=config.short_side_px,
            )
        except decode.DecodeError as error:
            # The picture may end before the sound does; a whole piece without one is no fault.
            if piece and error.reason_code in ("span_past_end", "unreadable"):
                return
            raise
        for image_hwc in video_thwc:
            yield simplejpeg.encode_jpeg(
                np.ascontiguousarray(image_hwc),
                quality=config.jpeg_quality,
                colorsubsampling="420",
                fastdct=True,
            )
