"""Builds small files with one property each, whose truth is known from how they are made.

The picture is four coloured quarters (red, green, blue, white; a grey bar moves over them), the
sound is silence and, from `ONSET_SEC` on, a tone. Everything is written with PyAV.
"""

from __future__ import annotations

import dataclasses
import fractions
import struct
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

# What the encoders of subtitles want to know before they begin.
_TEXT_HEADER = b"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,16
[Events]
Format: Layer, Start, End, Style, Text
"""

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
      title: of the stream; "" = none.
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
    title: str = ""


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
        stream.codec_context.subtitle_header = _TEXT_HEADER
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
        stream.bit_rate = 4_000_000
        same = item.codec in (None, usual.video)
        stream.options = item.options if item.options is not None else usual.options if same else {}
        stream.codec_context.time_base = fractions.Fraction(1, 1000)
        if stream.codec_context.name in ("mpeg4", "mpeg2video"):
            stream.codec_context.time_base = fractions.Fraction(1, RATE_HZ)
        if item.sar is not None:
            stream.codec_context.sample_aspect_ratio = item.sar
        if item.matrix is not None:
            stream.set_display_matrix(item.matrix)
        if item.title:
            stream.metadata["title"] = item.title
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


def both(path: Path, *, start_sec=0.0, picture=None, sound=None, options=None, more=()) -> Path:
    """Writes the usual picture and sound; `picture` and `sound` replace attributes of theirs."""
    rate_hz = CONTAINERS[path.suffix[1:]].audio_rate_hz
    shown = Picture(moving(), start_sec=start_sec)
    heard = Sound(beep(rate_hz=rate_hz), start_sec=start_sec)
    streams = [
        dataclasses.replace(shown, **(picture or {})),
        dataclasses.replace(heard, **(sound or {})),
        *more,
    ]
    return write(path, streams, options=options)


def grey(num_frames=NUM_FRAMES, height_px=HEIGHT_PX, width_px=WIDTH_PX):
    """Pictures that are not the wanted ones."""
    return [np.full((height_px, width_px, 3), 128, np.uint8)] * num_frames


def state_length(path: Path, factor: float) -> Path:
    """Multiplies every length that the header states."""
    data = bytearray(path.read_bytes())
    for name, offset, form in _LENGTHS[path.suffix[1:]]:
        at = data.find(name)
        assert at >= 0, f"{name} is not in {path}"
        while at >= 0:
            place = at + len(name) + offset
            [value] = struct.unpack_from(form, data, place)
            struct.pack_into(form, data, place, type(value)(value * factor))
            at = data.find(name, place)
    path.write_bytes(data)
    return path


# Where a header has lengths: what stands before, bytes in between, how it is written.
_LENGTHS = {
    "mp4": [(b"mvhd", 16, ">I"), (b"tkhd", 20, ">I"), (b"mdhd", 16, ">I")],
    "mkv": [(b"\x44\x89\x88", 0, ">d")],
    "webm": [(b"\x44\x89\x88", 0, ">d")],
    "avi": [(b"avih", 20, "<I"), (b"strh", 36, "<I")],
    "flv": [(b"duration\0", 0, ">d")],
    # The id of the file's properties; the time to play stands 40 bytes further.
    "asf": [(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"), 48, "<Q")],
}


# -- light ---------------------------------------------------------------------------------------

PQ, HLG = 16, 18


def hdr_frames(rgb_nits, transfer, num_frames=NUM_FRAMES):
    """Frames of 10 bits by BT.2100 whose four quarters have these colours in cd/m2, BT.2020."""
    frames = []
    for _ in range(num_frames):
        frame = av.VideoFrame(WIDTH_PX, HEIGHT_PX, "yuv420p10le")
        planes = [np.zeros((p.height, p.line_size // 2), "<u2") for p in frame.planes]
        for quarter, nits in enumerate(rgb_nits):
            codes = _yuv2020([_signal(value, nits, transfer) for value in nits])
            for plane, code, p in zip(planes, codes, frame.planes, strict=True):
                top, left = p.height // 2, p.width // 2
                rows = slice(top, None) if quarter >= 2 else slice(top)
                columns = slice(left, None) if quarter % 2 else slice(left)
                plane[rows, columns] = code
        for plane, p in zip(planes, frame.planes, strict=True):
            p.update(plane.tobytes())
        frame.color_trc, frame.color_primaries, frame.colorspace = transfer, 9, 9
        frame.color_range = 1
        frames.append(frame)
    return frames


def _signal(nits, rgb_nits, transfer):
    """BT.2100: the code 0 to 1 of a display's light."""
    if transfer == PQ:
        power = (nits / 10000) ** (2610 / 16384)
        m2 = 2523 / 4096 * 128
        return ((3424 / 4096 + 2413 / 4096 * 32 * power) / (1 + 2392 / 4096 * 32 * power)) ** m2
    # HLG: first what the display of 1000 cd/m2 adds is taken away.
    luma = 0.2627 * rgb_nits[0] + 0.6780 * rgb_nits[1] + 0.0593 * rgb_nits[2]
    scene = nits / 1000 * (luma / 1000) ** (1 / 1.2 - 1) if luma else 0.0
    if scene <= 1 / 12:
        return (3 * scene) ** 0.5
    return 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073


def _yuv2020(rgb):
    """10 bits, limited range, BT.2020 with non-constant luminance."""
    red, green, blue = rgb
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    chroma = ((blue - luma) / 1.8814, (red - luma) / 1.4746)
    return [round(64 + 876 * luma), *(round(512 + 896 * value) for value in chroma)]
