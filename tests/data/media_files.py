"""Makes small videos and manifests; also what tests run in other processes (keep imports light)."""

from __future__ import annotations

import csv
import fractions
import os
import signal
import time
from pathlib import Path

import av
import numpy as np

RATE_HZ = 16000


def render(path: Path, *, seconds=1.0, size_px=64, sound=True, hue=0) -> Path:
    """Writes an H.264 file in which a bright bar moves to the right, with a 440 Hz tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = size_px
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono") if sound else None
        num_frames = round(seconds * 25)
        for index in range(num_frames):
            image_hwc = np.full((size_px, size_px, 3), 40, np.uint8)
            left = index * (size_px - 8) // num_frames
            image_hwc[:, left : left + 8, hue % 3] = 230
            container.mux(video.encode(av.VideoFrame.from_ndarray(image_hwc, "rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
            wave = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def write_clip(
    path: Path,
    frames_thwc,
    *,
    times_sec=None,
    video_codec="libx264",
    pix_fmt="yuv420p",
    video_options=None,
    frame_rate_hz=25,
    waves=(),
    sample_rate_hz=RATE_HZ,
    audio_codec="aac",
    layout="mono",
    audio_start_sec=0.0,
    default_audio=None,
    options=None,
) -> Path:
    """Writes any codec and any time stamps. `waves`: float [channels, samples], a stream each."""
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(video_codec, rate=frame_rate_hz)
        video.height, video.width = frames_thwc[0].shape[:2]
        video.pix_fmt = pix_fmt
        video.options = video_options or {}
        if times_sec is None:
            times_sec = [i / frame_rate_hz for i in range(len(frames_thwc))]
            time_base = fractions.Fraction(1, frame_rate_hz)
        else:
            time_base = fractions.Fraction(1, 1000)
        video.codec_context.time_base = time_base
        streams = []
        for index in range(len(waves)):
            stream = container.add_stream(audio_codec, rate=sample_rate_hz, layout=layout)
            if audio_codec.startswith("wma"):  # has no default
                stream.bit_rate = 64000
            if default_audio is not None:
                is_default = index == default_audio
                stream.disposition = av.stream.Disposition.default if is_default else 0
            streams.append(stream)
        for image_hwc, time_sec in zip(frames_thwc, times_sec, strict=True):
            frame = av.VideoFrame.from_ndarray(image_hwc, "rgb24")
            frame.pts, frame.time_base = round(time_sec / time_base), time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for stream, wave_cs in zip(streams, waves, strict=True):
            _encode_sound(container, stream, wave_cs, sample_rate_hz, layout, audio_start_sec)
    return path


def _encode_sound(container, stream, wave_cs, sample_rate_hz, layout, start_sec):
    """In blocks of a tenth of a second; encoders that want other sizes buffer them."""
    block = sample_rate_hz // 10
    for first in range(0, wave_cs.shape[1], block):
        part = np.ascontiguousarray(wave_cs[:, first : first + block].T, np.float32)
        frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = sample_rate_hz
        frame.time_base = fractions.Fraction(1, sample_rate_hz)
        frame.pts = first + round(start_sec * sample_rate_hz)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def moving_bar(num_frames=25, height_px=48, width_px=48):
    """uint8 [t, h, w, 3]: a bright bar that goes from left to right on dark grey."""
    frames_thwc = np.full((num_frames, height_px, width_px, 3), 40, np.uint8)
    for index, image_hwc in enumerate(frames_thwc):
        left = index * (width_px - 8) // num_frames
        image_hwc[:, left : left + 8] = 220
    return frames_thwc


def tone(seconds=1.0, *, sample_rate_hz=RATE_HZ, frequency_hz=440.0, channels=1, amplitude=0.3):
    """float32 [channels, samples]: a sine."""
    times = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    wave = amplitude * np.sin(2 * np.pi * frequency_hz * times)
    return np.repeat(wave[None], channels, axis=0).astype(np.float32)


def write_manifest(path: Path, rows, header=("path", "start_sec", "end_sec", "label", "split")):
    """Writes a CSV; returns its path."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def square_or_die_at_three(number: int) -> int:
    """Kills its own process when given 3."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def square_or_hang_at_three(number: int) -> int:
    """Never ends when given 3."""
    while number == 3:
        time.sleep(1.0)
    return number * number


def square_or_raise_at_three(number: int) -> int:
    """Raises when given 3."""
    if number == 3:
        raise ValueError("three")
    return number * number


def remux(source: Path, out: Path, change) -> Path:
    """Copies packets; `change(stream_type, index, packet)` gives their bytes, or None to drop."""
    with av.open(str(source)) as reader, av.open(str(out), "w") as writer:
        streams = {s.index: writer.add_stream_from_template(s) for s in reader.streams}
        counts = dict.fromkeys(streams, 0)
        for packet in reader.demux():
            if not packet.size:
                continue  # the end
            index = counts[packet.stream_index]
            counts[packet.stream_index] += 1
            data = change(packet.stream.type, index, packet)
            if data is None:
                continue
            copy = av.Packet(data)
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
            copy.stream = streams[packet.stream_index]
            writer.mux(copy)
    return out


# Codec and sample rate of each kind of sound file.
_SOUND_CODECS = {
    ".wav": ("pcm_s16le", RATE_HZ),
    ".mp3": ("mp3", RATE_HZ),
    ".flac": ("flac", RATE_HZ),
    ".ogg": ("libopus", 48000),
    ".m4a": ("aac", RATE_HZ),
    ".opus": ("libopus", 48000),
    ".aac": ("aac", RATE_HZ),
}
SOUND_SUFFIXES = tuple(_SOUND_CODECS)


def write_sound(path: Path, *, seconds=2.0, onset_sec=0.0, cover=False) -> Path:
    """Writes silence and, from `onset_sec` on, a tone of 440 Hz; `cover`: with a picture."""
    codec, rate_hz = _SOUND_CODECS[path.suffix]
    wave_cs = tone(seconds, sample_rate_hz=rate_hz)
    wave_cs[:, : round(onset_sec * rate_hz)] = 0
    with av.open(str(path), "w", format={".aac": "adts"}.get(path.suffix)) as container:
        sound = container.add_stream(codec, rate=rate_hz, layout="mono")
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            image_hwc = np.full((64, 64, 3), 200, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image_hwc, "rgb24")))
            container.mux(picture.encode(None))
        _encode_sound(container, sound, wave_cs, rate_hz, "mono", 0.0)
    return path
