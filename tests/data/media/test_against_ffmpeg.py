"""The command ffmpeg, another reader of the same libraries, shows and plays the same."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import simplejpeg
from test_properties import CASES

from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.media.sound import decode_audio

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None,
    reason="needs the command ffmpeg, for instance apt-get install ffmpeg",
)
CONFIG = ExtractConfig(frame_rate_hz=25, short_side_px=4096, jpeg_quality=95)
# Where ffmpeg goes another way: it takes the largest stream, not the one marked, holds no last
# picture, fills nothing before the first one, and makes narrow pixels higher, not narrower.
OTHERWISE = (
    "one_picture",
    "default_before",
    "largest",
    "no_thumbnail",
    "no_cover",
    "header_says",
    "subtitle",
    "picture_late",
    "narrow_pixels",
)
# mov is like mp4.
COMPARED = [c for c in CASES if not c.name.startswith(OTHERWISE) and c.suffix != "mov"]


def run(*words) -> bytes:
    return subprocess.run(
        ["ffmpeg", "-v", "error", *map(str, words)], check=True, capture_output=True
    ).stdout


def shown_size(path) -> tuple[int, int]:
    """(height, width) of square pixels, as ffmpeg's filters turn them out."""
    # The size after the filters stands in the header of a picture.
    header = run("-i", path, "-vf", FILTER, "-frames:v", 1, "-f", "image2pipe", "-c:v", "ppm", "-")
    width, height = header.split(b"\n")[1].split()
    return int(height), int(width)


FILTER = "scale=round(iw*sar):ih,setsar=1"


@pytest.mark.parametrize("case", COMPARED, ids=str)
def test_ffmpeg_shows_and_plays_the_same(case, tmp_path):
    path = case.make(tmp_path / f"a.{case.suffix}")
    record = make_record(path, None, None, config=CONFIG, id="x", source="x")
    size_px = shown_size(path)
    raw = run("-i", path, "-vf", FILTER, "-f", "rawvideo", "-pix_fmt", "rgb24", "-vsync", "0", "-")
    theirs_thwc = np.frombuffer(raw, np.uint8).reshape(-1, *size_px, 3).astype(int)
    ours_thwc = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in record["frames"]]).astype(int)
    assert ours_thwc.shape[1:] == theirs_thwc.shape[1:]
    # A picture may be shown once more while a last packet of sound hangs over.
    assert abs(len(ours_thwc) - len(theirs_thwc)) <= 2
    # Orientation and colour, place by place and on average. JPEG and versions of swscale differ.
    assert np.abs(ours_thwc[0] - theirs_thwc[0]).mean() < 8
    assert np.abs(ours_thwc[0].mean(axis=(0, 1)) - theirs_thwc[0].mean(axis=(0, 1))).max() < 3
    compare_sound(path, record["end_sec"], 2 if "channel" in case.name else 1)


def compare_sound(path, end_sec, channels):
    """Level and lag of the sound, on the time axis that both count from the file's start."""
    ours = decode_audio(path, 0.0, end_sec)
    raw = run(
        "-i",
        path,
        # Without the picture the sound of a transport stream would start anew at 0.
        *("-map", "0:v:0", "-f", "null", "/dev/null", "-map", "0:a:0"),
        "-af",
        "aresample=async=1:first_pts=0",
        "-ac",
        channels,  # of one channel it would make two that are less loud
        "-ar",
        16000,
        "-f",
        "f32le",
        "-",
    )
    theirs = np.frombuffer(raw, "<f4").reshape(-1, channels).mean(axis=1)
    size = 2 * max(len(ours), len(theirs))
    product = np.fft.rfft(np.abs(ours), size) * np.conj(np.fft.rfft(np.abs(theirs), size))
    lag = int(np.argmax(np.fft.irfft(product, size)))
    lag = lag if lag < size // 2 else lag - size
    # Containers round stamps to 1 ms; versions of FFmpeg differ in what precedes AAC and Opus.
    assert abs(lag) <= 0.025 * 16000
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)
