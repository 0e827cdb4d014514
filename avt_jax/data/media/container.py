"""Opens media files nobody vouches for: what is wrong with one, and what it holds.

Files are opened by FFmpeg (inside PyAV) with two restrictions: only demuxers of ordinary containers
(a playlist could name other files or addresses), and only the file protocol.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Iterator
from typing import Any

import av

from avt_jax.data.media.demux import decoded_frames, origin_sec

REASON_CODES = (
    "missing_file",  # there is nothing at the path
    "empty_file",  # zero bytes
    "unreadable",  # a folder, no permission, or nothing in it that can be decoded
    "not_media",  # no container format that is known
    "no_video",  # no moving picture, in a file that is called a video
    "truncated",  # the file ends before its own header says
    "bad_span",  # start or end are no sensible times
    "span_past_end",  # the span starts after the end of the file
    "too_large",  # more pixels or bytes than any sensible clip
)

MAX_FRAME_PX = 64 * 2**20
"""Largest width times height that is decoded: 64 megapixels, twice 8K."""

MAX_SIDE_PX = 65500
"""Longest side of a frame; a JPEG holds no more than 65535 pixels in a row."""

_MAX_OUTPUT_BYTES = 4 * 2**30

_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,wav,w64,"
    "mp3,aac,flac,aiff,au,amr,ac3,eac3,dts,caf,gif,h264,hevc,m4v,h263,ivf,mxf,nut,rm,dv,av1,obu,vc1,wtv"
)

# Formats that do not state a length: FFmpeg guesses one from the bit rate, which may vary.
_GUESSED_LENGTHS = ("mp3", "aac")

# A title that is not UTF-8 is no reason to refuse a file. From PyAV 19 on that needs no option.
_TITLE_OPTIONS: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)

# First box types of ISO media files (mp4, mov): one that starts so but cannot be opened is cut off.
_ISO_BOX_TYPES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
# The first four bytes of Matroska or WebM, AVI, Ogg and Flash video.
_MAGIC_NUMBERS = (b"\x1aE\xdf\xa3", b"RIFF", b"OggS", b"FLV\x01")


class DecodeError(Exception):
    """A clip that cannot be decoded, with the reason.

    Attributes:
      reason_code: one of REASON_CODES.
      message: one sentence that names the file.
    """

    def __init__(self, reason_code: str, message: str):
        # Both go to Exception's own arguments, so that the error can travel between processes.
        super().__init__(reason_code, message)
        self.reason_code = reason_code
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    Attributes:
      duration_sec: length of the whole file.
      has_video: whether there is a moving picture (cover art is none).
      has_audio: whether there is an audio stream, silent or not.
      width_px: width as shown, after rotation; 0 without video.
      height_px: height as shown; 0 without video.
      frame_rate_hz: average frames per second; 0.0 without video or when unknown.
      audio_rate_hz: samples per second; 0 without audio.
    """

    duration_sec: float
    has_video: bool
    has_audio: bool
    width_px: int
    height_px: int
    frame_rate_hz: float
    audio_rate_hz: int


@dataclasses.dataclass
class DecodeReport:
    """What a decoder met on its way through a span; filled in by the functions it is handed to.

    Attributes:
      num_damaged: packets or frames of the span that could not be decoded or are known to be wrong.
      sound_sec: how much of the span the audio stream covers, silent or not.
      sound_end_sec: where in the file that ends; 0.0 without any.
    """

    num_damaged: int = 0
    sound_sec: float = 0.0
    sound_end_sec: float = 0.0


@contextlib.contextmanager
def open_media(path: str | os.PathLike[str]) -> Iterator[av.container.InputContainer]:
    """Opens a file for reading and closes it afterwards.

    Args:
      path: a local file.

    Yields:
      PyAV's container.

    Raises:
      DecodeError: missing_file, empty_file, unreadable, not_media or truncated.
    """
    _check_file(path)
    try:
        container = av.open(
            # An absolute path with its protocol: "a:b.mp4" must not be taken for protocol "a".
            "file:" + os.path.abspath(path),
            mode="r",
            options={"protocol_whitelist": "file", "format_whitelist": _CONTAINERS},
            **_TITLE_OPTIONS,
        )
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise _explain_open_error(path, error) from error
    with container:
        yield container


def _check_file(path: str | os.PathLike[str]) -> None:
    """Raises DecodeError for what can be known without reading the file."""
    if not os.path.exists(path):
        raise DecodeError("missing_file", f"there is no file at {path}")
    if not os.path.isfile(path):
        raise DecodeError("unreadable", f"{path} is not a regular file")
    if not os.access(path, os.R_OK):
        raise DecodeError("unreadable", f"no permission to read {path}")
    if os.path.getsize(path) == 0:
        raise DecodeError("empty_file", f"{path} is empty (0 bytes)")


def _explain_open_error(path: str | os.PathLike[str], error: Exception) -> DecodeError:
    """Tells a cut-off file from one that never was media."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError as read_error:
        return DecodeError("unreadable", f"{path} cannot be read: {read_error.strerror}")
    if isinstance(error, MemoryError):
        return DecodeError("too_large", f"{path} states sizes for which there is no memory")
    if head[4:8] in _ISO_BOX_TYPES:
        return DecodeError("truncated", f"{path} is cut off or damaged: its index is missing")
    if head.startswith(_MAGIC_NUMBERS):
        return DecodeError("truncated", f"{path} is cut off or damaged: its header is incomplete")
    return DecodeError(
        "not_media", f"{path} is not a video or audio file that can be read ({error})"
    )


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first stream with a moving picture, or None."""
    for stream in container.streams.video:
        is_cover = stream.disposition & av.stream.Disposition.attached_pic
        if stream.codec_context is not None and not is_cover:
            return stream
    return None


def audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The audio stream that a player would choose, or None.

    That is the first one marked as default among those with a known codec, or the first of them:
    a dubbed version or a commentary may well come first in a file.
    """
    streams = [s for s in container.streams.audio if s.codec_context is not None]
    is_default = av.stream.Disposition.default
    return next((s for s in streams if s.disposition & is_default), next(iter(streams), None))


def stated_duration_sec(container: av.container.InputContainer) -> float | None:
    """Length of a file by its header, in seconds; None if that does not say, or only guesses."""
    if not container.duration or container.format.name in _GUESSED_LENGTHS:
        return None
    return container.duration / av.time_base


def declared_end_sec(
    container: av.container.InputContainer, stream: av.stream.Stream
) -> float | None:
    """When a stream ends by its header, in seconds from the origin; None if that does not say."""
    if stream.duration and stream.time_base:
        end = (stream.start_time or 0) + stream.duration
        return float(end * stream.time_base) - origin_sec(container)
    # The container's duration is that of its longest stream: it speaks for this one if it is alone.
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Reads a file's header, and its first frame for the rotation.

    Args:
      path: a local file.

    Returns:
      What it holds.

    Raises:
      DecodeError: missing_file, empty_file, unreadable, not_media, truncated or too_large.
    """
    with open_media(path) as container:
        video, audio = video_stream(container), audio_stream(container)
        if video is None and audio is None:
            raise DecodeError("not_media", f"{path} holds neither video nor audio")
        duration_sec = stated_duration_sec(container)
        width_px = height_px = 0
        frame_rate_hz = 0.0
        if video is not None:
            check_frame_size(path, video.width, video.height)
            width_px, height_px = video.width, video.height
            frame_rate_hz = float(video.average_rate or video.guessed_rate or 0.0)
            if first_rotation_deg(container, video) % 180:
                width_px, height_px = height_px, width_px
        audio_rate_hz = audio.rate if audio is not None else 0
    return MediaInfo(
        duration_sec=_scan_duration_sec(path) if duration_sec is None else duration_sec,
        has_video=video is not None,
        has_audio=audio is not None,
        width_px=width_px,
        height_px=height_px,
        frame_rate_hz=frame_rate_hz,
        audio_rate_hz=audio_rate_hz,
    )


def check_frame_size(path: str | os.PathLike[str], width_px: int, height_px: int) -> None:
    """Refuses frames that no sensible video has.

    Args:
      path: named in the message.
      width_px: from the header or a frame.
      height_px: from the header or a frame.

    Raises:
      DecodeError: too_large, or unreadable when a side is zero.
    """
    if width_px < 1 or height_px < 1:
        raise DecodeError("unreadable", f"{path} states a frame size of {width_px} x {height_px}")
    if width_px * height_px > MAX_FRAME_PX or max(width_px, height_px) > MAX_SIDE_PX:
        raise DecodeError(
            "too_large",
            f"{path} has frames of {width_px} x {height_px} pixels; the limit is {MAX_FRAME_PX}, "
            f"and {MAX_SIDE_PX} for a side",
        )


def check_span(path: str | os.PathLike[str], start_sec: float, end_sec: float) -> None:
    """Raises DecodeError (bad_span) for times that make no sense."""
    if not (math.isfinite(start_sec) and math.isfinite(end_sec) and 0 <= start_sec < end_sec):
        raise DecodeError(
            "bad_span",
            f"the span {start_sec} to {end_sec} s of {path} needs 0 <= start < end, both finite",
        )


def check_output(path: str | os.PathLike[str], num_bytes: int) -> None:
    """Raises DecodeError (too_large) when a result would not fit into sensible memory."""
    if num_bytes > _MAX_OUTPUT_BYTES:
        raise DecodeError(
            "too_large",
            f"the span of {path} would need {num_bytes / 2**30:.1f} GiB decoded; cut it into "
            "shorter clips or lower the frame rate or size",
        )


def past_end_error(path: str | os.PathLike[str], start_sec: float, end_sec: float) -> DecodeError:
    """The error for a span that starts after the end."""
    return DecodeError(
        "span_past_end", f"the span starts at {start_sec:g} s but {path} ends at {end_sec:.3f} s"
    )


def use_one_thread(stream: av.VideoStream) -> None:
    """Call before the first frame is decoded; also refuses frames of absurd size in the codec."""
    # One thread: extraction runs one process per core.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    # The codec's own header may ask for more than the container's: it must not even allocate that.
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PX)}


def first_rotation_deg(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Degrees counterclockwise by which frames must be turned to be shown; decodes one frame."""
    use_one_thread(stream)
    frame = next(decoded_frames(container, stream), None)
    return 0 if frame is None else frame.rotation


def _scan_duration_sec(path: str | os.PathLike[str]) -> float:
    """Length of a file whose header does not state it: reads all packets, decodes none."""
    found = os.stat(path)
    return _scanned_sec(os.path.abspath(path), found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=256)  # each window of a file asks for it
def _scanned_sec(path: str, size: int, mtime_ns: int) -> float:
    del size, mtime_ns  # another file under the same name is scanned anew
    last_sec = 0.0
    num_frames = 0
    with open_media(path) as container:
        origin, video = origin_sec(container), video_stream(container)
        with contextlib.suppress(av.error.FFmpegError):
            for packet in container.demux():
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    last_sec = max(last_sec, end - origin)
                elif packet.stream is video and packet.size:
                    num_frames += 1
        if last_sec == 0.0 and num_frames and video is not None:
            # A raw stream has no time stamps at all: it plays at its nominal rate.
            last_sec = num_frames / float(video.average_rate or video.guessed_rate or 25)
    return last_sec
