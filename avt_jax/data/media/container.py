"""Opens media files nobody vouches for: what is wrong with one, and what it holds.

Files are opened by FFmpeg (inside PyAV) with two restrictions: only demuxers of ordinary containers
(a playlist could name other files or addresses), and only the file protocol.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any

import av

from avt_jax.data.media.demux import MAX_FRAME_PX
from avt_jax.data.media.whole import is_scrambled

REASON_CODES = (
    "missing_file",  # there is nothing at the path
    "empty_file",  # zero bytes
    "unreadable",  # a folder, no permission, or nothing in it that can be decoded
    "not_media",  # no container format that is known
    "no_video",  # no moving picture, in a file that is called a video
    "unsupported_codec",  # its picture, or all that it has, is coded in a way that is not known
    "encrypted",  # it cannot be decoded without a key
    "stamps_restart",  # its time stamps start anew in the middle
    "truncated",  # the file ends before its own header says
    "bad_span",  # start or end are no sensible times
    "span_past_end",  # the span starts after the end of the file
    "too_large",  # more pixels or bytes than any sensible clip
)

MAX_SIDE_PX = 65500
"""Longest side of a frame; a JPEG holds no more than 65535 pixels in a row."""

_MAX_OUTPUT_BYTES = 4 * 2**30

_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,wav,w64,"
    "mp3,aac,flac,aiff,au,amr,ac3,eac3,dts,caf,gif,h264,hevc,m4v,h263,ivf,mxf,nut,rm,dv,av1,obu,vc1,wtv"
)

_LOCAL = "file:"
# A title that is not UTF-8 is no reason to refuse a file. From PyAV 19 on that needs no option.
_TITLE_OPTIONS: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)

# First box types of ISO media files (mp4, mov): one that starts so but cannot be opened is cut off.
_ISO_BOX_TYPES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
# What animated WebP starts with; `RIFF` alone is that of AVI and WAV, too.
_WEBP = b"WEBP"
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


@dataclasses.dataclass
class DecodeReport:
    """What a decoder met on its way through a span; filled in by the functions it is handed to.

    Attributes:
      num_damaged: packets or frames of the span that could not be decoded or are known to be wrong.
      sound_sec: how much of the span the audio stream covers, silent or not.
      sound_end_sec: where in the file that ends; 0.0 without any.
      is_hdr: whether pictures of a high dynamic range were mapped to an ordinary one.
    """

    num_damaged: int = 0
    sound_sec: float = 0.0
    sound_end_sec: float = 0.0
    is_hdr: bool = False


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
    check_file(path)
    try:
        container = av.open(
            # An absolute path with its protocol: "a:b.mp4" must not be taken for protocol "a".
            _LOCAL + os.path.abspath(path),
            mode="r",
            options={"protocol_whitelist": "file", "format_whitelist": _CONTAINERS},
            **_TITLE_OPTIONS,
        )
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise _explain_open_error(path, error) from error
    with container:
        yield container


def path_of(container: av.container.InputContainer) -> str:
    """The file that was opened."""
    return container.name.removeprefix(_LOCAL)


def check_file(path: str | os.PathLike[str]) -> None:
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
    if is_scrambled(path):
        return DecodeError("encrypted", f"{path} is encrypted and cannot be shown without its key")
    if head[4:8] in _ISO_BOX_TYPES:
        return DecodeError("truncated", f"{path} is cut off or damaged: its index is missing")
    if head.startswith(b"RIFF") and head[8:] == _WEBP:
        return DecodeError(
            "unsupported_codec",
            f"{path} is a WebP picture, which cannot be decoded; convert it to mp4",
        )
    if head.startswith(_MAGIC_NUMBERS):
        return DecodeError("truncated", f"{path} is cut off or damaged: its header is incomplete")
    return DecodeError(
        "not_media", f"{path} is not a video or audio file that can be read ({error})"
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
