"""Shards of drawn clips for `benchmarks/pipeline.py`, of the size that extracted footage has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from tqdm import tqdm

from avt_jax.data.records.writer import RecordWriter

FRAME_RATE_HZ = 8.0
JPEG_QUALITY = 90
_NUM_SHAPES = 250
_GRAIN_LEVELS = 1.5  # of 255, differs in every frame as a camera's noise does


def make_shards(
    folder: Path, *, num_clips: int, clip_sec: float, height_px: int, width_px: int
) -> None:
    """Writes a "train" split of clips stored as `avt extract` does by default.

    Args:
      folder: an existing, empty folder.
      num_clips: >= 1.
      clip_sec: length of a clip.
      height_px: of a frame.
      width_px: of a frame.
    """
    writer = RecordWriter(
        folder,
        label_sets={"label": ("a", "b")},
        frame_rate_hz=FRAME_RATE_HZ,
        short_side_px=min(height_px, width_px),
        jpeg_quality=JPEG_QUALITY,
    )
    for index in tqdm(range(num_clips), desc="drawing clips", unit="clip", disable=None):
        rng = np.random.default_rng(index)
        fbank_sf = rng.normal(-5, 4, (round(clip_sec * 100), 128))
        record = {
            "id": f"clip-{index}",
            "source": f"clip-{index}",
            "frames": list(_frames(rng, round(clip_sec * FRAME_RATE_HZ), height_px, width_px)),
            "frame_rate_hz": np.float32(FRAME_RATE_HZ),
            "fbank": fbank_sf.astype(np.float16),
            "has_audio": True,
            "start_sec": 0.0,
            "end_sec": clip_sec,
            "labels": {"label": index % 2},
        }
        writer.add("train", record)
    writer.close()


def _frames(rng: np.random.Generator, count: int, height_px: int, width_px: int) -> Iterator[bytes]:
    """JPEGs of a camera that moves over a scene."""
    scene_hwc = _scene(rng, 2 * height_px, 2 * width_px)
    # Steps of a random walk, so that no two frames hold the same blocks.
    path = np.cumsum(rng.normal(0, 4, (count, 2)), axis=0)
    path = np.abs(path) % (height_px, width_px)
    for top, left in path.astype(int):
        view_hwc = scene_hwc[top : top + height_px, left : left + width_px]
        grain_hw1 = rng.normal(0, _GRAIN_LEVELS, (height_px, width_px, 1))
        image_hwc = np.clip(view_hwc + grain_hw1, 0, 255).astype(np.uint8)
        yield simplejpeg.encode_jpeg(
            image_hwc, quality=JPEG_QUALITY, colorsubsampling="420", fastdct=True
        )


def _scene(rng: np.random.Generator, height_px: int, width_px: int) -> np.ndarray:
    """Overlapping shapes with a soft texture over them, float32 [h, w, 3] in [0, 255]."""
    shapes_hwc = np.zeros((height_px, width_px, 3), np.uint8)
    for _ in range(_NUM_SHAPES):
        middle = (int(rng.integers(width_px)), int(rng.integers(height_px)))
        radius = 2 + int(rng.exponential(30))
        axes = (radius, max(1, int(radius * rng.uniform(0.3, 1))))
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(shapes_hwc, middle, axes, angle, 0, 360, colour, -1, cv2.LINE_AA)
    texture_hwc = np.zeros((height_px, width_px, 3), np.float32)
    for cells in (8, 16, 32, 64, 128):
        coarse = rng.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        texture_hwc += cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    return 0.7 * shapes_hwc + np.clip(38 + 8 * texture_hwc, 0, 76)
