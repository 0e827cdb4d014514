"""Cuts frames and sound out of video files, both on one time axis.

Second 0 is where the file starts. Frames are chosen by their time stamps, not by counting, so that
a variable frame rate, a dropped frame or a damaged packet never shifts what follows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from avt_jax.data.media import (
    REASON_CODES,
    DecodeError,
    MediaInfo,
    audio_stream,
    check_frame_size,
    declared_end_sec,
    decoded_frames,
    open_media,
    origin_sec,
    probe,
    video_stream,
)

__all__ = [
    "REASON_CODES",
    "DecodeError",
    "MediaInfo",
    "decode_audio",
    "decode_frames",
    "probe",
]

# Time stamps are rounded to the container's ticks: a frame this little late counts as on time.
_LATE_SEC = 1e-3
# Headers are a little off at the end of many files; more than this is a file that was cut off.
_END_TOLERANCE_SEC = 0.5
# How far before the span decoding starts. Formats differ in what their index seeks by; when the
# first frame turns out too late, the next entry is tried, and at last the file's very start.
_SEEK_LEADS_SEC = (0.0, 5.0, math.inf)
# Sound is decoded from a little earlier: codecs need a few frames to settle.
_AUDIO_LEAD_SEC = 0.5
# A jump in audio time stamps beyond this is a hole, less is jitter.
_AUDIO_GAP_SEC = 0.02
# Resampled along with the span on both sides, so that its edges are like any other place. A whole
# number of samples at every usual rate.
_AUDIO_MARGIN_SEC = 0.02
_MAX_OUTPUT_BYTES = 4 * 2**30


def decode_frames(
    path: str | os.PathLike,
    start_sec: float,
    end_sec: float,
    *,
    frame_rate_hz: float,
    short_side_px: int,
) -> np.ndarray:
    """Decodes a span of a video at a steady frame rate.

    Frame i is the last one of the source not later than start_sec + i / frame_rate_hz, turned as
    the file says it is to be shown. A span that runs past the end of the video gives fewer frames.
    Larger frames are scaled down; smaller ones are not enlarged. Pixels are taken to be square.
    A damaged packet is left out: the frame before it is shown until the next good one.

    Args:
      path: a local file.
      start_sec: >= 0, from the start of the file.
      end_sec: > start_sec; its own frame is not included.
      frame_rate_hz: > 0, frames per second of the result.
      short_side_px: > 0, the largest short side of the result.

    Returns:
      uint8 [t, h, w, 3] RGB, t >= 1 and at most (end_sec - start_sec) * frame_rate_hz, rounded up.

    Raises:
      DecodeError: with any of REASON_CODES.
      ValueError: frame_rate_hz or short_side_px is not positive.
    """
    _check_span(path, start_sec, end_sec)
    if not frame_rate_hz > 0 or short_side_px < 1:
        raise ValueError(
            f"frame_rate_hz and short_side_px must be > 0, got {frame_rate_hz} and {short_side_px}"
        )
    num_frames = max(1, math.ceil((end_sec - start_sec) * frame_rate_hz - 1e-6))
    # At least a pixel and a time stamp for each, before the size of a frame is known.
    _check_output(path, 11 * num_frames)
    times_sec = start_sec + np.arange(num_frames) / frame_rate_hz
    for lead_sec in _SEEK_LEADS_SEC:
        with open_media(path) as container:
            stream = video_stream(container)
            if stream is None:
                raise DecodeError("no_video", f"{path} holds no video")
            check_frame_size(path, stream.width, stream.height)
            _check_output(path, num_frames * math.prod(_fit(stream, short_side_px)) * 3)
            frames = _timed_frames(container, stream, max(0.0, start_sec - lead_sec))
            first = next(frames, None)
            is_last_try = lead_sec >= start_sec
            if not is_last_try and (first is None or first[0] > start_sec + _LATE_SEC):
                continue
            declared_end = declared_end_sec(container, stream)
            if first is None:
                raise _no_frames_error(path, start_sec, declared_end)
            return _resample_frames(
                path, first, frames, times_sec, end_sec, declared_end, short_side_px
            )
    raise AssertionError("the last seek lead is infinite, so the loop above has returned or raised")


def _check_span(path: str | os.PathLike, start_sec: float, end_sec: float) -> None:
    """Raises DecodeError for times that make no sense."""
    if not (math.isfinite(start_sec) and math.isfinite(end_sec) and 0 <= start_sec < end_sec):
        raise DecodeError(
            "bad_span",
            f"the span {start_sec} to {end_sec} s of {path} needs 0 <= start < end, both finite",
        )


def _check_output(path: str | os.PathLike, num_bytes: int) -> None:
    """Raises DecodeError when a result would not fit into sensible memory."""
    if num_bytes > _MAX_OUTPUT_BYTES:
        raise DecodeError(
            "too_large",
            f"the span of {path} would need {num_bytes / 2**30:.1f} GiB decoded; cut it into "
            "shorter clips or lower the frame rate or size",
        )


def _fit(frame: av.VideoStream | av.VideoFrame, short_side_px: int) -> tuple[int, int]:
    """Width and height after scaling down to the short side; never larger than the source."""
    scale = min(1.0, short_side_px / min(frame.width, frame.height))
    return max(1, round(frame.width * scale)), max(1, round(frame.height * scale))


def _timed_frames(
    container: av.container.InputContainer, stream: av.VideoStream, seek_sec: float
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Yields (time_sec, end_sec, frame) from the key frame at or before `seek_sec` on."""
    # One thread: extraction runs one process per core.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    origin = origin_sec(container)
    _seek(container, stream, seek_sec)
    usual_sec = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
    time_sec = seek_sec - usual_sec
    for frame in decoded_frames(container, stream):
        # Streams without time stamps (raw H.264) count on at their nominal rate.
        time_sec = time_sec + usual_sec if frame.time is None else frame.time - origin
        lasts_sec = float(frame.duration * frame.time_base) if frame.duration else usual_sec
        yield time_sec, time_sec + lasts_sec, frame


def _seek(container: av.container.InputContainer, stream: av.stream.Stream, sec: float) -> None:
    """Moves to the key frame at or before a time; stays at the start where a format cannot seek."""
    if sec <= 0:
        return
    try:
        ticks = int((sec + origin_sec(container)) / stream.time_base)
        container.seek(ticks, stream=stream, backward=True)
    except (av.error.FFmpegError, OverflowError):
        # Nothing was read yet, so decoding begins at the start and skips what comes too early.
        return


def _no_frames_error(
    path: str | os.PathLike, start_sec: float, declared_end: float | None
) -> DecodeError:
    """Why a stream gave no frame at all at or after the start of the span."""
    if declared_end is not None and start_sec < declared_end - _END_TOLERANCE_SEC:
        return DecodeError(
            "truncated", f"{path} is cut off or damaged: no frame can be decoded at {start_sec:g} s"
        )
    if declared_end is not None and start_sec >= declared_end:
        return _past_end_error(path, start_sec, declared_end)
    return DecodeError("unreadable", f"no frame of {path} can be decoded")


def _past_end_error(path: str | os.PathLike, start_sec: float, end_sec: float) -> DecodeError:
    """The span starts after the end."""
    return DecodeError(
        "span_past_end", f"the span starts at {start_sec:g} s but {path} ends at {end_sec:.3f} s"
    )


def _resample_frames(
    path: str | os.PathLike,
    first: tuple[float, float, av.VideoFrame],
    frames: Iterator[tuple[float, float, av.VideoFrame]],
    times_sec: np.ndarray,
    end_sec: float,
    declared_end: float | None,
    short_side_px: int,
) -> np.ndarray:
    """Picks the frame shown at every one of `times_sec`; see decode_frames."""
    _, shown_until_sec, held = first
    size = _fit(held, short_side_px)
    # One scaler for all frames: setting one up costs more than scaling a small frame.
    scaler = VideoReformatter()
    images_hwc: list[np.ndarray] = []

    def hold(num_frames: int) -> None:
        """Repeats the held frame until `num_frames` are there."""
        if num_frames > len(images_hwc):
            check_frame_size(path, held.width, held.height)
            images_hwc.extend([_to_rgb(scaler, held, size)] * (num_frames - len(images_hwc)))

    for time_sec, frame_end_sec, frame in frames:
        # Before the first frame of all, that frame is shown: `held` is never empty.
        hold(int(np.searchsorted(times_sec, time_sec - _LATE_SEC)))
        held, shown_until_sec = frame, max(shown_until_sec, frame_end_sec)
        if time_sec - _LATE_SEC > times_sec[-1]:
            break
    else:
        if declared_end is not None and (
            shown_until_sec < min(declared_end, end_sec) - _END_TOLERANCE_SEC
        ):
            raise DecodeError(
                "truncated",
                f"{path} is cut off or damaged: it should last {declared_end:.2f} s but nothing "
                f"can be decoded after {shown_until_sec:.2f} s",
            )
        if times_sec[0] >= shown_until_sec - _LATE_SEC:
            raise _past_end_error(path, float(times_sec[0]), shown_until_sec)
        hold(int(np.searchsorted(times_sec, shown_until_sec - _LATE_SEC)))
    return np.stack(images_hwc)


def _to_rgb(scaler: VideoReformatter, frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """One frame as uint8 [h, w, 3], scaled to (width, height) and then turned upright."""
    scaled = scaler.reformat(
        frame, width=size[0], height=size[1], format="rgb24", interpolation="BILINEAR"
    )
    image_hwc = scaled.to_ndarray()
    # Rotation is counterclockwise, as rot90 is.
    return np.ascontiguousarray(np.rot90(image_hwc, round(frame.rotation / 90)))


def decode_audio(
    path: str | os.PathLike, start_sec: float, end_sec: float, *, sample_rate_hz: int = 16000
) -> np.ndarray | None:
    """Decodes the sound of a span as one channel, the mean of all.

    Args:
      path: a local file.
      start_sec: >= 0, from the start of the file.
      end_sec: > start_sec.
      sample_rate_hz: of the result.

    Returns:
      float32 [samples] in [-1, 1], exactly round((end_sec - start_sec) * sample_rate_hz) samples,
      the first at start_sec; zeros where the stream has nothing. None without an audio stream.

    Raises:
      DecodeError: with any of REASON_CODES but no_video.
    """
    _check_span(path, start_sec, end_sec)
    num_samples = round((end_sec - start_sec) * sample_rate_hz)
    _check_output(path, num_samples * 4)
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return None
        if container.duration and start_sec >= container.duration / av.time_base:
            raise _past_end_error(path, start_sec, container.duration / av.time_base)
        _seek(container, stream, start_sec - _AUDIO_LEAD_SEC)
        origin = origin_sec(container)
        timeline = None
        for frame in decoded_frames(container, stream):
            time_sec = None if frame.time is None else frame.time - origin
            if timeline is None:
                _check_output(path, round((end_sec - start_sec) * frame.sample_rate) * 4)
                timeline = _Timeline(
                    start_sec - _AUDIO_MARGIN_SEC, end_sec + _AUDIO_MARGIN_SEC, frame.sample_rate
                )
            if time_sec is not None and time_sec >= end_sec + _AUDIO_MARGIN_SEC:
                break
            timeline.add(frame, time_sec)
    if timeline is None:
        if start_sec < _AUDIO_LEAD_SEC:
            raise DecodeError("unreadable", f"no sound of {path} can be decoded")
        return np.zeros(num_samples, np.float32)
    out = _resample(timeline.samples, timeline.sample_rate_hz, sample_rate_hz)
    out = out[round(_AUDIO_MARGIN_SEC * sample_rate_hz) :][:num_samples]
    return np.clip(np.pad(out, (0, num_samples - len(out))), -1.0, 1.0)


class _Timeline:
    """Mono sound at the source's own rate; frames are put where their time stamps say.

    Attributes:
      samples: float32, zero where nothing was added.
      sample_rate_hz: the source's.
    """

    def __init__(self, start_sec: float, end_sec: float, sample_rate_hz: int):
        self.samples = np.zeros(math.ceil((end_sec - start_sec) * sample_rate_hz), np.float32)
        self.sample_rate_hz = sample_rate_hz
        self._start_sec = start_sec
        self._position: int | None = None  # where a frame that follows without a hole goes

    def add(self, frame: av.AudioFrame, time_sec: float | None) -> None:
        """Takes one decoded frame and its time (None: right after the one before)."""
        if frame.sample_rate != self.sample_rate_hz:
            return  # the rate changed within the stream; leave a hole rather than play it too fast
        stated = self._position
        if time_sec is not None:
            stated = round((time_sec - self._start_sec) * self.sample_rate_hz)
        elif stated is None:
            stated = round(-self._start_sec * self.sample_rate_hz)
        # Containers round stamps (Matroska to 1 ms): only a real hole moves the position.
        allowed = _AUDIO_GAP_SEC * self.sample_rate_hz
        if self._position is None or abs(stated - self._position) > allowed:
            self._position = stated
        mono = _to_mono(frame)
        first = max(0, -self._position)
        start = max(0, self._position)
        taken = mono[first : first + max(0, len(self.samples) - start)]
        self.samples[start : start + len(taken)] = taken
        self._position += len(mono)


def _to_mono(frame: av.AudioFrame) -> np.ndarray:
    """The mean of all channels, float32 [samples], whatever the frame's sample format."""
    rate_hz = frame.sample_rate
    convert = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate_hz).resample
    frame.pts = None
    parts = [part.to_ndarray() for part in (*convert(frame), *convert(None))]
    return np.concatenate(parts, axis=1).mean(axis=0)


def _resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Changes the rate of float32 [samples]; the first sample keeps its place in time."""
    if from_hz == to_hz:
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = from_hz
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=to_hz)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray()[0] for part in parts])
