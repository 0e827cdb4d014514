"""What a file holds."""

from __future__ import annotations

import dataclasses
import functools
import os

import av

from avt_jax.data.media.container import check_file, check_frame_size, open_media
from avt_jax.data.media.geometry import geometry_of
from avt_jax.data.media.layout import Layout, layout_of
from avt_jax.data.media.scan import scan


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    Attributes:
      duration_sec: length of picture and sound, from where the first of them starts to where the
        last one ends.
      has_video: whether there is a moving picture (cover art is none).
      has_audio: whether there is an audio stream, silent or not.
      width_px: width as shown, after rotation, of square pixels; 0 without video.
      height_px: height as shown; 0 without video.
      frame_rate_hz: average frames per second; 0.0 without video or when unknown.
      audio_rate_hz: samples per second; 0 without audio.
      has_unknown_audio: whether there is sound, and nothing that decodes it.
      missing_sec: how much longer it is by its header, although nothing was cut off.
      is_broken: whether parts are missing, and nothing says how much.
    """

    duration_sec: float
    has_video: bool
    has_audio: bool
    width_px: int
    height_px: int
    frame_rate_hz: float
    audio_rate_hz: int
    has_unknown_audio: bool = False
    missing_sec: float = 0.0
    is_broken: bool = False


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Goes through a file's packets, of a large file through the last ones, and its first frame.

    Args:
      path: a local file.

    Returns:
      What it holds.

    Raises:
      DecodeError: missing_file, empty_file, unreadable, not_media, truncated, too_large, encrypted,
        unsupported_codec or stamps_restart.
    """
    return _look(path)[0]


def layout_at(path: str | os.PathLike[str]) -> Layout:
    """Which streams of a file count, and their time axis; raises as `probe`."""
    return _look(path)[1]


def _look(path: str | os.PathLike[str]) -> tuple[MediaInfo, Layout]:
    check_file(path)
    found = os.stat(path)
    # Another file under the same name is looked at anew.
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return _looked(os.fspath(path), identity)


@functools.lru_cache(maxsize=256)  # each clip and window of a file asks for it
def _looked(path: str, identity: tuple[int, ...]) -> tuple[MediaInfo, Layout]:
    _, _, num_bytes, _ = identity
    with open_media(path) as container:
        found = scan(container, num_bytes)
        layout = layout_of(path, container, found)
        width_px = height_px = audio_rate_hz = 0
        frame_rate_hz = 0.0
        if layout.video is not None:
            video = container.streams[layout.video]
            assert isinstance(video, av.VideoStream), "that is what was chosen"
            check_frame_size(path, video.width, video.height)
            geometry = geometry_of(video, found.first_frames.get(layout.video))
            width_px, height_px = geometry.shown_size(video.width, video.height)
            frame_rate_hz = float(video.average_rate or video.guessed_rate or 0.0)
        if layout.audio is not None:
            audio = container.streams[layout.audio]
            assert isinstance(audio, av.AudioStream), "that is what was chosen"
            audio_rate_hz = audio.rate
    media = MediaInfo(
        duration_sec=layout.duration_sec,
        has_video=layout.video is not None,
        has_audio=layout.audio is not None,
        width_px=width_px,
        height_px=height_px,
        frame_rate_hz=frame_rate_hz,
        audio_rate_hz=audio_rate_hz,
        has_unknown_audio=layout.has_unknown_audio,
        missing_sec=layout.promised_sec - layout.duration_sec,
        is_broken=layout.is_broken,
    )
    return media, layout
