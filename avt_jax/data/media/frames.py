"""Cuts frames out of video files, on the time axis that `sound` has too.

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

from avt_jax.data.media.colour import hdr_image, is_hdr
from avt_jax.data.media.container import (
    DecodeError,
    DecodeReport,
    check_frame_size,
    check_output,
    check_span,
    open_media,
    past_end_error,
)
from avt_jax.data.media.demux import Damage, decoded_frames, seek, use_one_thread
from avt_jax.data.media.geometry import Geometry, geometry_of
from avt_jax.data.media.layout import Layout
from avt_jax.data.media.probe import layout_at

# Time stamps are rounded to the container's ticks: a frame this little late counts as on time.
_LATE_SEC = 1e-3
# Headers are a little off at the end of many files; more than this is a file that was cut off.
_END_TOLERANCE_SEC = 0.5
# How far before the span decoding starts. Formats differ in what their index seeks by; when the
# first frame turns out too late, the next entry is tried, and at last the file's very start.
_SEEK_LEADS_SEC = (0.0, 5.0, math.inf)

_TimedFrame = tuple[float, float, av.VideoFrame]  # shown from, until (seconds), picture


def decode_frames(
    path: str | os.PathLike[str],
    start_sec: float,
    end_sec: float,
    *,
    frame_rate_hz: float,
    short_side_px: int,
) -> np.ndarray:
    """Decodes a span of a video at a steady frame rate.

    Frame i is the last one of the source not later than start_sec + i / frame_rate_hz, turned,
    mirrored and stretched as the file says it is to be shown. A span that runs past the end of the
    video gives fewer frames; slides, or a single picture, stay as long as there is sound. Larger
    frames are scaled down; smaller ones are not enlarged. A high dynamic range is mapped to an
    ordinary one. A damaged packet is left out: the frame before it is shown until the next good
    one.

    Args:
      path: a local file.
      start_sec: >= 0, from the start of the file.
      end_sec: > start_sec; its own frame is not included.
      frame_rate_hz: > 0, frames per second of the result.
      short_side_px: > 0, the largest short side of the result.

    Returns:
      uint8 [t, h, w, 3] RGB, t >= 1 and at most (end_sec - start_sec) * frame_rate_hz, rounded up.

    Raises:
      DecodeError: with any of `container.REASON_CODES`.
      ValueError: frame_rate_hz or short_side_px is not positive.
    """
    images_hwc: list[np.ndarray] = []
    for image_hwc in iter_frames(
        path, start_sec, end_sec, frame_rate_hz=frame_rate_hz, short_side_px=short_side_px
    ):
        if not images_hwc:
            num_frames = _num_frames(start_sec, end_sec, frame_rate_hz)
            check_output(path, num_frames * image_hwc.nbytes)
        images_hwc.append(image_hwc)
    return np.stack(images_hwc)


def iter_frames(
    path: str | os.PathLike[str],
    start_sec: float,
    end_sec: float,
    *,
    frame_rate_hz: float,
    short_side_px: int,
    report: DecodeReport | None = None,
) -> Iterator[np.ndarray]:
    """As `decode_frames`, but one frame at a time.

    Args:
      path: see `decode_frames`, as for all others.
      start_sec: of the span.
      end_sec: of the span.
      frame_rate_hz: of the result.
      short_side_px: of the result.
      report: damaged packets are added to it when the last frame was taken.

    Yields:
      uint8 [h, w, 3] RGB, all of one size; at least one. The very same array again where a picture
      stays for longer than one frame.

    Raises:
      DecodeError: with any of `container.REASON_CODES`; may come after the last frame.
      ValueError: frame_rate_hz or short_side_px is not positive.
    """
    check_span(path, start_sec, end_sec)
    if not frame_rate_hz > 0 or short_side_px < 1:
        raise ValueError(
            f"frame_rate_hz and short_side_px must be > 0, got {frame_rate_hz} and {short_side_px}"
        )
    num_frames = _num_frames(start_sec, end_sec, frame_rate_hz)
    # At least a pixel and a time stamp for each.
    check_output(path, 11 * num_frames)
    times_sec = start_sec + np.arange(num_frames) / frame_rate_hz
    layout = layout_at(path)
    if layout.video is None:
        raise DecodeError("no_video", f"{path} holds no video")
    for lead_sec in _SEEK_LEADS_SEC:
        with open_media(path) as container:
            stream = container.streams[layout.video]
            assert isinstance(stream, av.VideoStream), "that is what was chosen"
            check_frame_size(path, stream.width, stream.height)
            damage = Damage(start_sec + layout.origin_sec, end_sec + layout.origin_sec)
            seek_sec = max(0.0, start_sec - lead_sec)
            frames = _timed_frames(container, stream, seek_sec, layout, damage)
            first = next(frames, None)
            is_last_try = lead_sec >= start_sec
            if not is_last_try and (first is None or first[0] > start_sec + _LATE_SEC):
                continue
            if first is None:
                raise _no_frames_error(path, start_sec, layout.video_end_sec)
            shown = _shown_frames(path, first, frames, times_sec, end_sec, layout)
            geometry = geometry_of(stream, first[2])
            yield from _rgb_images(path, shown, short_side_px, geometry, report)
            if report is not None:
                report.num_damaged += damage.count
            return
    raise AssertionError("the last seek lead is infinite, so the loop above has returned or raised")


def _num_frames(start_sec: float, end_sec: float, frame_rate_hz: float) -> int:
    return max(1, math.ceil((end_sec - start_sec) * frame_rate_hz - 1e-6))


def _timed_frames(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    seek_sec: float,
    layout: Layout,
    damage: Damage,
) -> Iterator[_TimedFrame]:
    """Yields what is shown from the key frame at or before `seek_sec` on."""
    use_one_thread(stream)
    if seek_sec > 0 and layout.can_seek:
        seek(container, stream, seek_sec + layout.origin_sec)
    clock = layout.clock()
    usual_sec = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
    time_sec = seek_sec - usual_sec
    for frame in decoded_frames(container, stream, damage):
        # Streams without time stamps (raw H.264) count on at their nominal rate.
        time_sec = time_sec + usual_sec if frame.time is None else clock(frame.time)
        lasts_sec = usual_sec
        if frame.duration and frame.time_base:
            lasts_sec = float(frame.duration * frame.time_base)
        yield time_sec, time_sec + lasts_sec, frame


def _no_frames_error(
    path: str | os.PathLike[str], start_sec: float, declared_end: float | None
) -> DecodeError:
    """Why a stream gave no frame at all at or after the start of the span."""
    if declared_end is not None and start_sec < declared_end - _END_TOLERANCE_SEC:
        return DecodeError(
            "truncated", f"{path} is cut off or damaged: no frame can be decoded at {start_sec:g} s"
        )
    if declared_end is not None and start_sec >= declared_end:
        return past_end_error(path, start_sec, declared_end)
    return DecodeError("unreadable", f"no frame of {path} can be decoded")


def _shown_frames(
    path: str | os.PathLike[str],
    first: _TimedFrame,
    frames: Iterator[_TimedFrame],
    times_sec: np.ndarray,
    end_sec: float,
    layout: Layout,
) -> Iterator[tuple[av.VideoFrame, int]]:
    """Yields (frame, at how many of `times_sec` it is shown), in order; see decode_frames."""
    _, shown_until_sec, held = first
    num_done = 0
    for time_sec, frame_end_sec, frame in frames:
        # Before the first frame of all, that frame is shown: `held` is never empty.
        num_due = int(np.searchsorted(times_sec, time_sec - _LATE_SEC))
        if num_due > num_done:
            yield held, num_due - num_done
            num_done = num_due
        held, shown_until_sec = frame, max(shown_until_sec, frame_end_sec)
        if time_sec - _LATE_SEC > times_sec[-1]:
            return
    declared_end = layout.video_end_sec
    if layout.holds_last:
        shown_until_sec = max(shown_until_sec, layout.duration_sec)
    if declared_end is not None and (
        shown_until_sec < min(declared_end, end_sec) - _END_TOLERANCE_SEC
    ):
        raise DecodeError(
            "truncated",
            f"{path} is cut off or damaged: it should last {declared_end:.2f} s but nothing "
            f"can be decoded after {shown_until_sec:.2f} s",
        )
    if times_sec[0] >= shown_until_sec - _LATE_SEC:
        raise past_end_error(path, float(times_sec[0]), shown_until_sec)
    num_due = int(np.searchsorted(times_sec, shown_until_sec - _LATE_SEC))
    if num_due > num_done:
        yield held, num_due - num_done


def _rgb_images(
    path: str | os.PathLike[str],
    shown: Iterator[tuple[av.VideoFrame, int]],
    short_side_px: int,
    geometry: Geometry,
    report: DecodeReport | None,
) -> Iterator[np.ndarray]:
    """Scales and turns frames; all get the size and the turn of the first."""
    # One scaler for all frames: setting one up costs more than scaling a small frame.
    scaler = VideoReformatter()
    size_px: tuple[int, int] | None = None
    for frame, num_times in shown:
        check_frame_size(path, frame.width, frame.height)
        if size_px is None:
            size_px = geometry.fit(frame.width, frame.height, short_side_px)
        if is_hdr(frame):
            image_hwc = hdr_image(frame, scaler, *size_px)
            if report is not None:
                report.is_hdr = True
        else:
            image_hwc = scaler.reformat(
                frame, width=size_px[0], height=size_px[1], format="rgb24", interpolation="BILINEAR"
            ).to_ndarray()
        image_hwc = geometry.turn(image_hwc)
        for _ in range(num_times):
            yield image_hwc
