"""Reads a stream packet by packet, past whatever is damaged, and never without end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import av

MAX_FRAME_PX = 64 * 2**20
"""Largest width times height that is decoded: 64 megapixels, twice 8K."""

# Time stamps that go back by more start anew. Those that go on much further do, too: where their
# counter of 33 bits seems to have run over, FFmpeg adds a day.
_RESTART_SEC = 1.0
_LEAP_SEC = 3600.0

# A reader that fails this often is not getting anywhere: without a limit, a demuxer that reports
# the same error again and again would keep a process forever.
_MAX_READ_ERRORS = 100


class Damage:
    """Counts damage that shows within a span: what is broken from the key frame before it on.

    Attributes:
      count: packets or frames that could not be decoded, or that are known to be wrong.
    """

    def __init__(self, start_sec: float, end_sec: float):
        """Takes the span, in the container's own time."""
        self.count = 0
        self._start_sec, self._end_sec = start_sec, end_sec

    def saw_key(self, time_sec: float | None) -> None:
        """Nothing after a key frame depends on what came before it."""
        if time_sec is not None and time_sec <= self._start_sec:
            self.count = 0

    def add(self, time_sec: float | None) -> None:
        """Counts a damaged packet or frame; a time of None is taken to lie in the span."""
        if time_sec is None or time_sec < self._end_sec:
            self.count += 1


def stamps_restart(before_sec: float, sec: float) -> bool:
    """Whether a time stamp that follows another one belongs to a recording of its own."""
    return before_sec - sec > _RESTART_SEC or sec - before_sec > _LEAP_SEC


class Clock:
    """Puts the times of a stream's frames on the axis that starts where the file starts."""

    def __init__(self, origin_sec: float, shifts_sec: Sequence[float]):
        """Begins at the start of a file, or anywhere where there is but one part.

        Args:
          origin_sec: the container's own time of what is second 0.
          shifts_sec: for each part of a file whose stamps start anew, what is added to them.
        """
        self._origin_sec, self._shifts_sec = origin_sec, shifts_sec
        self._part = 0
        self._before_sec: float | None = None

    def __call__(self, sec: float) -> float:
        """The time of the next frame, from its own."""
        has_more = self._part < len(self._shifts_sec) - 1
        if has_more and self._before_sec is not None and stamps_restart(self._before_sec, sec):
            self._part += 1
        self._before_sec = sec
        return sec - self._origin_sec + self._shifts_sec[self._part]


def seek(container: av.container.InputContainer, stream: av.stream.Stream, sec: float) -> None:
    """Moves to the key frame at or before a time; stays at the start where a format cannot seek.

    Args:
      container: an open file of which nothing was read.
      stream: whose key frames count.
      sec: in the container's own time.
    """
    if stream.time_base is None:
        return
    try:
        container.seek(int(sec / stream.time_base), stream=stream, backward=True)
    except (av.error.FFmpegError, OverflowError):
        # Nothing was read yet, so decoding begins at the start and skips what comes too early.
        return


def use_one_thread(stream: av.VideoStream) -> None:
    """Call before the first frame is decoded; also refuses frames of absurd size in the codec."""
    # One thread: extraction runs one process per core.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    # The codec's own header may ask for more than the container's: it must not even allocate that.
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PX)}


def readable_packets(
    container: av.container.InputContainer,
    *streams: av.stream.Stream,
    on_error: Callable[[], None],
) -> Iterator[av.Packet[Any]]:
    """Yields the packets that can be read from here on; the end comes early in a file cut off.

    Args:
      container: an open file.
      *streams: whose packets; all where none is named.
      on_error: called at each place that cannot be read.
    """
    for _ in range(_MAX_READ_ERRORS):
        try:
            # Formats that can find their place again go on with what follows the damage.
            yield from container.demux(*streams)
            return
        except av.error.FFmpegError:
            on_error()


@overload
def decoded_frames(
    container: av.container.InputContainer, stream: av.VideoStream, damage: Damage | None = None
) -> Iterator[av.VideoFrame]: ...


@overload
def decoded_frames(
    container: av.container.InputContainer, stream: av.AudioStream, damage: Damage | None = None
) -> Iterator[av.AudioFrame]: ...


def decoded_frames(
    container: av.container.InputContainer,
    stream: av.VideoStream | av.AudioStream,
    damage: Damage | None = None,
) -> Iterator[av.VideoFrame] | Iterator[av.AudioFrame]:
    """Yields what can be decoded from here on, leaving out damaged packets.

    Args:
      container: an open file.
      stream: one of its streams.
      damage: counts what is left out.

    Yields:
      Frames in order of presentation; the end comes early in a file that is cut off.
    """
    damage = Damage(0.0, 0.0) if damage is None else damage
    time_sec = None

    def note_error() -> None:
        damage.add(time_sec)

    for packet in readable_packets(container, stream, on_error=note_error):
        ticks = packet.dts if packet.pts is None else packet.pts
        # The last, empty packet only flushes the decoder; it has no time.
        if ticks is not None and packet.time_base:
            time_sec = float(ticks * packet.time_base)
        yield from _decode_packet(packet, time_sec, damage)
    # After too many errors the decoder may still hold frames back.
    with contextlib.suppress(av.error.FFmpegError):
        yield from stream.codec_context.decode(None)


def _decode_packet(packet: av.Packet[Any], time_sec: float | None, damage: Damage) -> Iterator[Any]:
    if packet.is_keyframe:
        damage.saw_key(time_sec)
    if packet.is_corrupt:
        damage.add(time_sec)
    try:
        frames = packet.decode()
    except av.error.FFmpegError:
        damage.add(time_sec)
        return
    for frame in frames:
        if frame.is_corrupt:
            damage.add(frame.time)
        yield frame
