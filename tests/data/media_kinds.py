"""Builds small files with one property each, whose truth is known from how they are made.

The picture is four coloured quarters (red, green, blue, white; a grey bar moves over them), the
sound is silence and, from `ONSET_SEC` on, a tone. Everything is written with PyAV.
"""

from __future__ import annotations

import dataclasses
import fractions
from pathlib import Path

import av
import numpy as np

RATE_HZ = 25
SECONDS = 1.6
NUM_FRAMES = 40
ONSET_SEC = 0.8
AMPLITUDE = 0.25
HEIGHT_PX, WIDTH_PX = 48, 64
TONE_HZ = 1000

_QUICK = {"deadline": "realtime", "cpu-used": "8"}
_X264 = {"preset": "ultrafast", "crf": "12", "g": "10"}


@dataclasses.dataclass(frozen=True)
class Codecs:
    """What is usual in a container."""

    video: str
    audio: str
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    audio_rate_hz: int = 48000


CONTAINERS = {
    "mp4": Codecs("libx264", "aac", _X264),
    "mov": Codecs("libx264", "pcm_s16le", _X264),
    "mkv": Codecs("libx264", "aac", _X264),
    "webm": Codecs("libvpx", "libopus", _QUICK),
    "ts": Codecs("libx264", "aac", _X264),
    "avi": Codecs("mpeg4", "pcm_s16le", {"g": "10"}),
    "flv": Codecs("libx264", "aac", _X264, 44100),
    "asf": Codecs("wmv2", "wmav2", {"g": "10"}),
    "ogg": Codecs("libvpx", "libopus", _QUICK),
}

QUARTERS = ((220, 30, 30), (30, 200, 30), (40, 40, 220), (220, 220, 220))
"""RGB of top left, top right, bottom left, bottom right."""


def picture(height_px=HEIGHT_PX, width_px=WIDTH_PX) -> np.ndarray:
    """uint8 [h, w, 3]: the four quarters."""
    image_hwc = np.empty((height_px, width_px, 3), np.uint8)
    top, left = height_px // 2, width_px // 2
    image_hwc[:top, :left], image_hwc[:top, left:] = QUARTERS[:2]
    image_hwc[top:, :left], image_hwc[top:, left:] = QUARTERS[2:]
    return image_hwc


def moving(num_frames=NUM_FRAMES, height_px=HEIGHT_PX, width_px=WIDTH_PX):
    """List of pictures over which a grey bar moves down."""
    images = []
    for index in range(num_frames):
        image_hwc = picture(height_px, width_px)
        top = index * (height_px - 8) // num_frames
        image_hwc[top : top + 8] = 110
        images.append(image_hwc)
    return images


def beep(seconds=SECONDS, onset_sec=ONSET_SEC, *, rate_hz=48000, channels=1, only=None):
    """float32 [channels, samples]: silence, then the tone; `only`: in this channel alone."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * times) * (times >= onset_sec)
    wave_cs = np.repeat(wave[None], channels, axis=0).astype(np.float32)
    if only is not None:
        wave_cs[[c for c in range(channels) if c != only]] = 0
    return wave_cs


@dataclasses.dataclass
class Picture:
    """A stream of pictures.

    Attributes:
      images: uint8 [h, w, 3], or frames of their own format.
      times_sec: of each, before `start_sec` is added; None: evenly.
      sar: width of a pixel by its height.
      matrix: display matrix, nine numbers in FFmpeg's fixed point.
      bsf: bit-stream filter of the packets.
      setup: further attributes of the codec context.
    """

    images: list
    times_sec: list[float] | None = None
    start_sec: float = 0.0
    codec: str | None = None
    pix_fmt: str = "yuv420p"
    options: dict[str, str] | None = None
    sar: fractions.Fraction | None = None
    matrix: tuple[int, ...] | None = None
    bsf: str | None = None
    disposition: int | None = None
    setup: dict[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Sound:
    """A stream of sound; float32 [channels, samples]."""

    wave_cs: np.ndarray
    layout: str = "mono"
    start_sec: float = 0.0
    codec: str | None = None
    disposition: int | None = None


@dataclasses.dataclass
class Text:
    """A subtitle from one time to another."""

    codec: str
    start_sec: float
    end_sec: float


def write(path: Path, streams, *, options=None) -> Path:
    """Writes streams into the container that the suffix names, with interleaved packets."""
    usual = CONTAINERS[path.suffix[1:]]
    packets = []
    with av.open(str(path), "w", options=options or {}) as container:
        added = [_add(container, item, usual) for item in streams]
        container.start_encoding()
        for item, stream in zip(streams, added, strict=True):
            encode = {Picture: _pictures, Sound: _sounds, Text: _texts}[type(item)]
            packets += encode(item, stream)
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux_one(packet)
    return path


def _add(container, item, usual):
    if isinstance(item, Text):
        stream = container.add_stream(item.codec)
        stream.time_base = fractions.Fraction(1, 1000)
        return stream
    if isinstance(item, Sound):
        stream = container.add_stream(
            item.codec or usual.audio, rate=usual.audio_rate_hz, layout=item.layout
        )
        stream.bit_rate = 128000 * len(item.wave_cs)
    else:
        stream = container.add_stream(item.codec or usual.video, rate=RATE_HZ)
        first = item.images[0]
        is_frame = isinstance(first, av.VideoFrame)
        stream.width, stream.height = (
            (first.width, first.height) if is_frame else first.shape[1::-1]
        )
        stream.pix_fmt = item.pix_fmt
        same = item.codec in (None, usual.video)
        stream.options = item.options if item.options is not None else usual.options if same else {}
        stream.codec_context.time_base = fractions.Fraction(1, 1000)
        if stream.codec_context.name == "mpeg4":
            stream.codec_context.time_base = fractions.Fraction(1, RATE_HZ)
        if item.sar is not None:
            stream.codec_context.sample_aspect_ratio = item.sar
        if item.matrix is not None:
            stream.set_display_matrix(item.matrix)
        for name, value in item.setup.items():
            setattr(stream.codec_context, name, value)
    if item.disposition is not None:
        stream.disposition = item.disposition
    return stream


def _pictures(item, stream):
    base = stream.codec_context.time_base
    times = item.times_sec
    if times is None:
        times = [index / RATE_HZ for index in range(len(item.images))]
    packets = []
    for image, time_sec in zip(item.images, times, strict=True):
        if not isinstance(image, av.VideoFrame):
            image = av.VideoFrame.from_ndarray(image, "rgb24")
        image.pts, image.time_base = round((time_sec + item.start_sec) / base), base
        packets += stream.encode(image)
    packets += stream.encode(None)
    if item.bsf is not None:
        change = av.bitstream.BitStreamFilterContext(item.bsf, in_stream=stream)
        changed = []
        for packet in [*packets, None]:
            changed += change.filter(packet)
        for packet in changed:
            packet.stream = stream
        packets = changed
    return packets


def _sounds(item, stream):
    rate_hz = stream.codec_context.sample_rate
    packets = []
    for first in range(0, item.wave_cs.shape[1], rate_hz // 10):
        part = np.ascontiguousarray(item.wave_cs[:, first : first + rate_hz // 10].T)
        frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="flt", layout=item.layout)
        frame.sample_rate, frame.time_base = rate_hz, fractions.Fraction(1, rate_hz)
        frame.pts = first + round(item.start_sec * rate_hz)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def _texts(item, stream):
    data = b"text" if item.codec != "mov_text" else b"\0\4text"
    packet = av.Packet(data)
    packet.stream, packet.time_base = stream, fractions.Fraction(1, 1000)
    packet.pts = packet.dts = round(item.start_sec * 1000)
    packet.duration = round((item.end_sec - item.start_sec) * 1000)
    return [packet]
