"""Goes through the packets of a file: what is really in it, whatever its header says."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import av

from avt_jax.data.media.container import path_of
from avt_jax.data.media.demux import (
    MAX_FRAME_PX,
    readable_packets,
    stamps_restart,
    use_one_thread,
)
from avt_jax.data.media.whole import asf_end_sec

GUESSED_LENGTHS = ("mp3", "aac")
"""Formats that do not state a length: FFmpeg guesses one from the bit rate, which may vary."""

# Gone through from the start to the end; of what is larger the start and the end have to do.
_SMALL_BYTES = 32 * 2**20
# How much of the end.
_TAIL_SEC = 10.0
# In a large file that may restart its time stamps, this many places are looked at.
_NUM_PLACES = 16
# Formats that can be joined by appending files.
_CAN_RESTART = ("mpegts", "mpeg")
# Formats whose length, as FFmpeg reads it, is the time stamp of the end.
_STATE_ENDS = ("matroska,webm", "asf", "ogg")
# The format whose index names every packet, unless it was recorded in fragments.
_HAS_INDEX = "mov,mp4,m4a,3gp,3g2,mj2"
# The index and the header agree when they are no further apart.
_INDEX_OFF_SEC = 0.15
# Formats that know encryption.
_CAN_ENCRYPT = ("matroska,webm", _HAS_INDEX)
_KEY_OF_MATROSKA = "enc_key_id"


class Track:
    """The packets of a stream that were seen.

    Attributes:
      count: how many packets.
    """

    def __init__(self, tick_sec: float):
        """Takes the unit of the stream's time stamps."""
        self.count = 0
        self._tick_sec = tick_sec
        # In ticks: this is done for each packet, and fractions are slow.
        self._first: int | None = None
        self._last = self._end = 0
        self._dts: int | None = None
        self._parts: list[tuple[float, float]] = []
        self._is_full = False

    def add(self, packet: av.Packet[Any]) -> None:
        """Takes the next packet."""
        if self._is_full:
            return
        self.count += 1
        ticks = packet.pts
        if ticks is None:
            ticks = packet.dts
        if ticks is None or packet.is_discard:
            return
        end = ticks + (packet.duration or 0)
        if self._first is None:
            self._first, self._last, self._end = ticks, ticks, end
            return
        self._first, self._last = min(self._first, ticks), max(self._last, ticks)
        self._end = max(self._end, end)

    def take_index(self, stream: av.stream.Stream) -> bool:
        """Takes what an index says of all packets, if the stream's header says the same.

        Packets that are added afterwards change nothing.
        """
        entries = stream.index_entries
        if not stream.frames or len(entries) != stream.frames or not stream.duration:
            return False
        first, last = entries[0].timestamp, entries[-1].timestamp
        start = first if stream.start_time is None else stream.start_time
        end = start + stream.duration
        # An index has decoding times, which are a little earlier.
        step = (last - first) / max(1, len(entries) - 1)
        is_alike = abs(last + step - end) * self._tick_sec <= _INDEX_OFF_SEC
        if len(entries) == 1 or is_alike:
            self.count, self._is_full = len(entries), True
            self._first, self._last, self._end = start, max(start, last), end
        return self._is_full

    def restarts(self, packet: av.Packet[Any]) -> bool:
        """Whether the stamps of the next packet start anew. Ask before `add`."""
        before, self._dts = self._dts, packet.dts
        if before is None or packet.dts is None:
            return False
        return stamps_restart(before * self._tick_sec, packet.dts * self._tick_sec)

    def begin_part(self) -> None:
        """Call before `add` with the first packet whose stamps start anew."""
        self._parts = self.parts_sec
        self._first = None

    def jump(self) -> None:
        """Call when the next packet is from another place."""
        self._dts = None

    @property
    def is_single(self) -> bool:
        """Whether there is one packet and no more, as far as was looked."""
        return self.count == 1 or (
            self._first is not None and self._first == self._last and not self._parts
        )

    @property
    def parts_sec(self) -> list[tuple[float, float]]:
        """(start, end) of the stamps, and anew each time they start anew; empty without any."""
        if self._first is None:
            return self._parts
        return [*self._parts, (self._first * self._tick_sec, self._end * self._tick_sec)]

    @property
    def start_sec(self) -> float | None:
        """Smallest time stamp since they last started anew; None where packets have none."""
        return None if self._first is None else self._first * self._tick_sec

    @property
    def last_sec(self) -> float | None:
        """Largest time stamp since then."""
        return None if self._first is None else self._last * self._tick_sec

    @property
    def end_sec(self) -> float | None:
        """Where the last one ends."""
        return None if self._first is None else self._end * self._tick_sec


@dataclasses.dataclass
class Scan:
    """What the packets of a file tell.

    Attributes:
      tracks: of each stream, by its index.
      first_frames: the first picture that can be decoded, by the index of its stream.
      is_complete: whether all packets were gone through, and not only the start and the end.
      num_errors: places that could not be read.
      encrypted: indices of streams with encrypted packets.
    """

    tracks: dict[int, Track]
    first_frames: dict[int, av.VideoFrame] = dataclasses.field(default_factory=dict)
    is_complete: bool = True
    num_errors: int = 0
    encrypted: set[int] = dataclasses.field(default_factory=set)

    def note_error(self) -> None:
        """Counts a place that could not be read."""
        self.num_errors += 1


def scan(container: av.container.InputContainer, num_bytes: int) -> Scan:
    """Goes through a file that was just opened.

    Args:
      container: the file.
      num_bytes: its size, which decides how much of it is read.

    Returns:
      What was found.
    """
    found = Scan(_new_tracks(container))
    # Of Matroska's own way to encrypt FFmpeg tells the key and no more.
    found.encrypted = {s.index for s in container.streams if _KEY_OF_MATROSKA in s.metadata}
    for stream in container.streams.video:
        if stream.codec_context is not None:
            use_one_thread(stream)
    # Without a length there is no way to the end but through everything.
    knows_end = container.duration and container.format.name not in GUESSED_LENGTHS
    if container.format.name == _HAS_INDEX and _take_index(container, found):
        _walk(container, found, max_bytes=_SMALL_BYTES)
        return found
    if num_bytes <= _SMALL_BYTES or not knows_end:
        _walk(container, found)
        return found
    found.is_complete = False
    _walk(container, found, max_bytes=_SMALL_BYTES)
    if container.format.name in _CAN_RESTART and _restarts(container, found, num_bytes):
        # Rare enough: all of it is read, from the start.
        with contextlib.suppress(av.error.FFmpegError):
            container.seek(0, unsupported_byte_offset=True)
        found.tracks = _new_tracks(container)
        found.is_complete = True
        _walk(container, found)
        return found
    _seek_tail(container)
    for track in found.tracks.values():
        track.jump()
    _walk(container, found)
    return found


def _new_tracks(container: av.container.InputContainer) -> dict[int, Track]:
    return {s.index: Track(float(s.time_base or 0)) for s in container.streams}


def _take_index(container: av.container.InputContainer, found: Scan) -> bool:
    """Whether the index of an mp4 tells all of its pictures and sound, and of its other streams."""
    return all([found.tracks[stream.index].take_index(stream) for stream in container.streams])


def _walk(
    container: av.container.InputContainer, found: Scan, max_bytes: int | None = None
) -> None:
    """Reads packets up to the end, or until each stream has shown a picture within `max_bytes`."""
    waiting = {
        stream.index
        for stream in container.streams.video
        if stream.codec_context is not None
        and stream.index not in found.first_frames
        and stream.width * stream.height <= MAX_FRAME_PX
    }
    can_encrypt = container.format.name in _CAN_ENCRYPT
    can_restart = container.format.name in _CAN_RESTART
    num_read = num_packets = 0
    for packet in readable_packets(container, on_error=found.note_error):
        track = found.tracks.get(packet.stream_index)
        if not packet.size or track is None:
            continue  # the end, or a stream that the header did not announce
        if can_restart and track.restarts(packet):
            track.begin_part()
        track.add(packet)
        num_packets += 1
        # Some begin in the clear; to ask each packet would take as long as to read it.
        is_asked = can_encrypt and (num_packets < 16 or num_packets % 16 == 0)
        if is_asked and packet.has_sidedata("encryption_info"):
            found.encrypted.add(packet.stream_index)
            waiting.discard(packet.stream_index)
        if packet.stream_index in waiting:
            with contextlib.suppress(av.error.FFmpegError):
                for frame in packet.decode():
                    found.first_frames[packet.stream_index] = frame
                    waiting.discard(packet.stream_index)
                    break
        num_read += packet.size
        if max_bytes is not None and (not waiting or num_read > max_bytes):
            return


def _restarts(container: av.container.InputContainer, found: Scan, num_bytes: int) -> bool:
    """Whether the time stamps of a large file start anew, as far as some places of it show."""
    for number in range(1, _NUM_PLACES):
        with contextlib.suppress(av.error.FFmpegError):
            container.seek(number * num_bytes // _NUM_PLACES, unsupported_byte_offset=True)
            for packet in container.demux():
                track = found.tracks.get(packet.stream_index)
                if track is not None and packet.dts is not None:
                    if track.restarts(packet):
                        return True
                    break
    return False


def header_end_sec(container: av.container.InputContainer) -> float | None:
    """Where a file ends by its header, in its own time; None where that does not say."""
    if not container.duration:
        return asf_end_sec(path_of(container)) if container.format.name == "asf" else None
    start = 0 if container.format.name in _STATE_ENDS else container.start_time or 0
    end_sec = (start + container.duration) / av.time_base
    if container.format.name == "avi":
        # FFmpeg corrects the length of a file that was cut off, but not the number of pictures.
        rates = [(s.frames, s.average_rate) for s in container.streams.video]
        end_sec = max(end_sec, *(frames / float(rate) for frames, rate in rates if rate), 0.0)
    return end_sec


def _seek_tail(container: av.container.InputContainer) -> None:
    """Moves near the end; stays where that is not possible."""
    end_sec = header_end_sec(container)
    if end_sec is not None:
        with contextlib.suppress(av.error.FFmpegError, OverflowError):
            container.seek(max(0, round((end_sec - _TAIL_SEC) * av.time_base)))
