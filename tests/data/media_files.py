"""Makes small videos and manifests; also what tests run in other processes (keep imports light)."""

from __future__ import annotations

import csv
import os
import signal
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
