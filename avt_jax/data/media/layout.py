"""Which streams of a file are looked at, on which time axis, and how long they last.

Headers are not trusted: their lengths count subtitles and the time before the first picture, or
were never corrected at the end of a recording. Where the packets disagree, they are right.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import av

from avt_jax.data.media.container import DecodeError
from avt_jax.data.media.demux import Clock
from avt_jax.data.media.scan import GUESSED_LENGTHS, Scan, header_end_sec
from avt_jax.data.media.whole import is_broken_ogg, is_whole

# A header that is no further off is kept: the last packets of sound often hold padding. One that
# promises more than there is may belong to a file that was cut off.
_HEADER_OFF_SEC = 0.15
# Formats round time stamps by no more.
_TICK_SEC = 1e-3
# Pictures that come no faster are slides: the last one stays as long as there is sound.
_SLIDES_HZ = 1.0

_FLAGS = av.stream.Disposition
_THUMBNAILS = _FLAGS.attached_pic | _FLAGS.timed_thumbnails


@dataclasses.dataclass(frozen=True)
class Layout:
    """What was found out about the streams of a file.

    Attributes:
      video: index of the stream of moving pictures; None without.
      audio: index of the stream of sound; None without.
      has_unknown_audio: whether there is sound, and nothing that decodes it.
      origin_sec: the container's own time of what is second 0: where picture or sound start.
      shifts_sec: what is added to the time stamps of each part where files were joined end to end,
        so that they go on; (0.0,) for most.
      duration_sec: from there to where the longer of the two ends, or, in a file that was cut off,
        would end; 0.0 when nothing has a length.
      promised_sec: how long they last by the header where that is more; else `duration_sec`.
      video_end_sec: when the pictures should end by the header; None: it does not say.
      holds_last: whether the last picture stays to the end: a single one, or slides.
      is_broken: whether parts are missing, and nothing says how much.
    """

    video: int | None
    audio: int | None
    has_unknown_audio: bool
    origin_sec: float
    shifts_sec: tuple[float, ...]
    duration_sec: float
    promised_sec: float
    video_end_sec: float | None
    holds_last: bool
    is_broken: bool

    @property
    def can_seek(self) -> bool:
        """Whether a place can be found by its time stamp."""
        return len(self.shifts_sec) == 1

    def clock(self) -> Clock:
        """Puts the frames of a stream on the file's time axis."""
        return Clock(self.origin_sec, self.shifts_sec)


def layout_of(
    path: str | os.PathLike[str], container: av.container.InputContainer, found: Scan
) -> Layout:
    """Decides what of a file counts.

    Args:
      path: named in messages.
      container: the file.
      found: what its packets tell.

    Raises:
      DecodeError: not_media, unsupported_codec, encrypted or stamps_restart.
    """
    video = _choose_video(path, container, found)
    audio = audio_stream(container)
    has_unknown_audio = audio is None and bool(container.streams.audio)
    if video is None and audio is None:
        if has_unknown_audio:
            raise _unsupported(path, "sound")
        raise DecodeError("not_media", f"{path} holds neither video nor audio")
    chosen = [stream for stream in (video, audio) if stream is not None]
    if found.encrypted.intersection(stream.index for stream in chosen):
        raise DecodeError("encrypted", f"{path} is encrypted and cannot be shown without its key")
    origin_sec = _origin_sec(container, chosen)
    parts = _parts_sec(path, [found.tracks[s.index].parts_sec for s in chosen], origin_sec)
    shifts_sec, last_sec = _join(parts, origin_sec)
    duration_sec = promised_sec = last_sec
    if len(shifts_sec) == 1:
        duration_sec, promised_sec = _durations_sec(path, container, found, chosen, origin_sec)
    is_cut = duration_sec == promised_sec > last_sec + _HEADER_OFF_SEC
    return Layout(
        video=None if video is None else video.index,
        audio=None if audio is None else audio.index,
        has_unknown_audio=has_unknown_audio,
        origin_sec=origin_sec,
        shifts_sec=shifts_sec,
        duration_sec=duration_sec,
        promised_sec=promised_sec,
        video_end_sec=None
        if video is None
        else _video_end_sec(container, found, video, origin_sec, is_cut),
        holds_last=video is not None and _is_slides(video, found),
        is_broken=container.format.name == "ogg" and is_broken_ogg(path),
    )


def audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The audio stream that a player would choose, or None.

    That is the first one marked as default among those with a known codec, or the first of them:
    a dubbed version or a commentary may well come first in a file.
    """
    streams = [s for s in container.streams.audio if s.codec_context is not None]
    return next((s for s in streams if s.disposition & _FLAGS.default), next(iter(streams), None))


def _choose_video(
    path: str | os.PathLike[str], container: av.container.InputContainer, found: Scan
) -> av.VideoStream | None:
    """The largest of those marked as default, or of all; no cover, no thumbnail beside others."""
    streams = [s for s in container.streams.video if not s.disposition & _THUMBNAILS]
    known = [s for s in streams if s.codec_context is not None]
    moving = [s for s in known if s.frames != 1 and not found.tracks[s.index].is_single]
    if len(known) < len(streams) and not moving:
        raise _unsupported(path, "picture")
    moving = moving or known
    default = [s for s in moving if s.disposition & _FLAGS.default]
    return max(default or moving, key=lambda s: s.width * s.height, default=None)


def _unsupported(path: str | os.PathLike[str], what: str) -> DecodeError:
    return DecodeError(
        "unsupported_codec",
        f"the {what} of {path} is of a codec that cannot be decoded here; convert it, for instance "
        "to H.264 and AAC",
    )


def _origin_sec(
    container: av.container.InputContainer, chosen: Sequence[av.stream.Stream]
) -> float:
    """Where the first of the streams starts; transport streams start anywhere."""
    starts = [
        # Rounded as FFmpeg rounds the start of a container.
        round(s.start_time * s.time_base * av.time_base) / av.time_base
        for s in chosen
        if s.start_time is not None and s.time_base is not None
    ]
    return min(starts, default=0.0)


def _parts_sec(
    path: str | os.PathLike[str],
    parts_of_streams: list[list[tuple[float, float]]],
    origin_sec: float,
) -> list[tuple[float, float]]:
    """(start, end) of each part of a file by the stamps of all its streams."""
    numbers = {len(parts) for parts in parts_of_streams if parts}
    if len(numbers) > 1:
        first_end_sec = min(parts[0][1] for parts in parts_of_streams if len(parts) > 1)
        raise DecodeError(
            "stamps_restart",
            f"the time stamps of {path} restart at {first_end_sec - origin_sec:.2f} s, but not "
            "those of both picture and sound; give the files that it was joined from",
        )
    return [
        (min(start for start, _ in same), max(end for _, end in same))
        for same in zip(*filter(None, parts_of_streams), strict=True)
    ]


def _join(parts: list[tuple[float, float]], origin_sec: float) -> tuple[tuple[float, ...], float]:
    """(what is added to the stamps of each part so that they go on, where the last one ends)."""
    shifts_sec, end_sec = [0.0], 0.0
    for index, (part_start_sec, part_end_sec) in enumerate(parts):
        if index:
            shifts_sec.append(origin_sec + end_sec - part_start_sec)
        end_sec = part_end_sec - origin_sec + shifts_sec[-1]
    return tuple(shifts_sec), end_sec


def _durations_sec(
    path: str | os.PathLike[str],
    container: av.container.InputContainer,
    found: Scan,
    chosen: Sequence[av.VideoStream | av.AudioStream],
    origin_sec: float,
) -> tuple[float, float]:
    """How long picture and sound last, and how long by the header where that promises more."""
    ends = [found.tracks[s.index].end_sec for s in chosen]
    last_sec = max((end - origin_sec for end in ends if end is not None), default=0.0)
    if last_sec == 0.0:
        last_sec = _nominal_sec(chosen[0], found)
    stated_end_sec = header_end_sec(container)
    if stated_end_sec is None or container.format.name in GUESSED_LENGTHS:
        return last_sec, last_sec
    stated_sec = stated_end_sec - origin_sec
    all_ends = [track.end_sec for track in found.tracks.values() if track.end_sec is not None]
    longest_sec = max(all_ends, default=origin_sec) - origin_sec
    others_last_longer = longest_sec > last_sec + _TICK_SEC
    if abs(stated_sec - last_sec) <= _HEADER_OFF_SEC and not others_last_longer:
        return stated_sec, stated_sec
    if stated_sec - longest_sec <= _HEADER_OFF_SEC:
        return last_sec, last_sec
    # What is missing was cut off, or was never there.
    is_cut = found.num_errors or not is_whole(path)
    return stated_sec if is_cut else last_sec, stated_sec


def _nominal_sec(stream: av.VideoStream | av.AudioStream, found: Scan) -> float:
    """A raw stream has no time stamps at all: it plays at its nominal rate."""
    if not isinstance(stream, av.VideoStream):
        return 0.0
    return found.tracks[stream.index].count / float(
        stream.average_rate or stream.guessed_rate or 25
    )


def _video_end_sec(
    container: av.container.InputContainer,
    found: Scan,
    video: av.VideoStream,
    origin_sec: float,
    is_cut: bool,
) -> float | None:
    """When the pictures end by their own part of the header, as far as the packets agree."""
    if len(found.tracks[video.index].parts_sec) > 1:
        return None
    if video.duration and video.time_base:
        end_sec = float(((video.start_time or 0) + video.duration) * video.time_base) - origin_sec
    else:
        # The container's duration is that of its longest stream: it speaks for this one if it is
        # alone.
        stated_end_sec = header_end_sec(container)
        if stated_end_sec is None or len(container.streams) > 1:
            return None
        end_sec = stated_end_sec - origin_sec
    seen_end_sec = found.tracks[video.index].end_sec
    if is_cut or seen_end_sec is None:
        return end_sec
    return min(end_sec, seen_end_sec - origin_sec)


def _is_slides(video: av.VideoStream, found: Scan) -> bool:
    """Whether pictures come so slowly that the last one is meant to stay."""
    track = found.tracks[video.index]
    if track.is_single or track.start_sec is None or track.last_sec is None:
        return track.is_single
    if not found.is_complete:
        return 0 < float(video.average_rate or 0) <= _SLIDES_HZ
    return track.last_sec - track.start_sec >= (track.count - 1) / _SLIDES_HZ
