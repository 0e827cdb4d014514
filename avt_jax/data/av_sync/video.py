"""The visible half of AV-Sync: a ball that falls, a hammer, a lamp, a mouth, acting at instants.

Units: pixels with the origin at the top left, x right, y down; seconds from the clip's start. Time
is a circle, as in `instants`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from avt_jax.data.av_events.video import Shape, draw_background, draw_shape
from avt_jax.data.av_sync.audio import sound_sec
from avt_jax.data.av_sync.things import Thing

_DARK = (40.0, 22.0, 26.0)
_DIM = (90.0, 90.0, 96.0)
_DISC, _SQUARE = 0, 4


def draw_frames(
    acting: Sequence[tuple[Thing, np.ndarray, str]],
    rng: np.random.Generator,
    *,
    num_frames: int,
    frame_rate_hz: float,
    size_px: int,
) -> np.ndarray:
    """Renders the picture of one clip.

    Args:
      acting: [(thing, [n] instants in s, "left" or "right")].
      rng: source of background and places.
      num_frames: t, > 0.
      frame_rate_hz: frames per second, > 0.
      size_px: width and height, > 0.

    Returns:
      uint8 [t, h, w, 3] RGB.
    """
    clip_sec = num_frames / frame_rate_hz
    time_sec = np.arange(num_frames) / frame_rate_hz
    background_hwc = draw_background(rng, size_px)
    frames_thwc = np.broadcast_to(background_hwc, (num_frames, *background_hwc.shape)).copy()
    draw = {"ball": _ball, "hammer": _hammer, "lamp": _lamp, "mouth": _mouth}
    for thing, instants_n, side in acting:
        x_px = size_px * ((0.27 if side == "left" else 0.73) + rng.uniform(-0.04, 0.04))
        y_px = size_px * rng.uniform(0.62, 0.82)
        place = np.array([x_px, y_px])
        since_t = since(time_sec, instants_n, clip_sec)
        until_t = since(-time_sec, -instants_n, clip_sec)
        draw[thing.kind](_Act(frames_thwc, thing, place, since_t, until_t))
    return frames_thwc


def since(time_sec: np.ndarray, instants_n: np.ndarray, clip_sec: float) -> np.ndarray:
    """[t] seconds since the last of the instants, on the circle; 0 at one."""
    return ((time_sec[:, None] - instants_n[None, :]) % clip_sec).min(-1)


class _Act(NamedTuple):
    """Where and when a thing is drawn: [t] seconds since it acted last, and until it acts next."""

    frames_thwc: np.ndarray
    thing: Thing
    place: np.ndarray
    since_t: np.ndarray
    until_t: np.ndarray


def _shape(
    frames_thwc: np.ndarray,
    sides: int,
    color_c: tuple[float, float, float],
    center: np.ndarray,
    radius: float | np.ndarray,
) -> None:
    count = len(frames_thwc)
    center_t2 = np.broadcast_to(center, (count, 2))
    radius_t = np.broadcast_to(np.asarray(radius, np.float64), (count,))
    angle_rad = 0.0 if sides == _SQUARE else 0.3
    draw_shape(frames_thwc, Shape(sides, angle_rad, color_c), center_t2, radius_t)


def _radius(frames_thwc: np.ndarray, thing: Thing, least: float, most: float) -> float:
    return frames_thwc.shape[1] * (least + (most - least) * thing.size)


def _ball(act: _Act) -> None:
    """Free fall between touches of a ledge: the longer from one to the next, the higher."""
    frames_thwc, thing, place, since_t, until_t = act
    size_px = frames_thwc.shape[1]
    radius_px = _radius(frames_thwc, thing, 0.05, 0.12)
    gap_t = since_t + until_t
    share_t = since_t / np.maximum(gap_t, 1e-9)
    height_t = 0.45 * size_px * np.minimum(1.0, (gap_t / 1.6) ** 2) * 4 * share_t * (1 - share_t)
    for offset in np.linspace(-0.12, 0.12, 7):
        ledge = place + [offset * size_px, 0.025 * size_px]
        _shape(frames_thwc, _SQUARE, _DIM, ledge, 0.025 * size_px)
    center_t2 = np.stack(
        [np.full_like(height_t, place[0]), place[1] - radius_px - height_t], axis=-1
    )
    _shape(frames_thwc, _DISC, thing.make.color_c, center_t2, radius_px)


def _hammer(act: _Act) -> None:
    """Strikes within a sixth of a second, and is raised again in half of one."""
    frames_thwc, thing, place, since_t, until_t = act
    size_px = frames_thwc.shape[1]
    head_px = _radius(frames_thwc, thing, 0.045, 0.085)
    raised_t = np.minimum(np.minimum(1.0, since_t / 0.5), np.minimum(1.0, until_t / 0.16))
    angle_t = math.radians(75) * raised_t
    length_px = 0.3 * size_px
    pivot = place + [0.17 * size_px, -head_px]
    _shape(frames_thwc, _SQUARE, _DIM, place + [-0.13 * size_px, 0.05 * size_px], 0.06 * size_px)
    direction_t2 = np.stack([-np.cos(angle_t), -np.sin(angle_t)], axis=-1)
    for part in np.linspace(0.1, 0.9, 7):
        handle_t2 = pivot + part * length_px * direction_t2
        _shape(frames_thwc, _DISC, _DIM, handle_t2, 0.02 * size_px)
    _shape(frames_thwc, _SQUARE, thing.make.color_c, pivot + length_px * direction_t2, head_px)


def _lamp(act: _Act) -> None:
    """Flashes, and glows for a moment."""
    frames_thwc, thing, place, since_t, _ = act
    size_px = frames_thwc.shape[1]
    center = place - [0, 0.2 * size_px]
    bulb_px = _radius(frames_thwc, thing, 0.05, 0.1)
    _shape(frames_thwc, _DISC, _DIM, center, bulb_px)
    glow_t = np.exp(-since_t / thing.make.decay_sec)
    _shape(frames_thwc, _DISC, thing.make.color_c, center, 2.0 * bulb_px * glow_t)


def _mouth(act: _Act) -> None:
    """A face whose mouth opens as long as its vowel sounds, and as far as the vowel needs."""
    frames_thwc, thing, place, since_t, _ = act
    size_px = frames_thwc.shape[1]
    face_px = _radius(frames_thwc, thing, 0.13, 0.2)
    center = place - [0, 0.15 * size_px]
    _shape(frames_thwc, _DISC, thing.make.color_c, center, face_px)
    for side in (-0.4, 0.4):
        eye = center + [side * face_px, -0.3 * face_px]
        _shape(frames_thwc, _DISC, _DARK, eye, 0.1 * face_px)
    whole_sec = sound_sec(thing)
    open_t = np.clip(np.minimum(since_t / 0.03, (whole_sec - since_t) / 0.1), 0.08, 1.0)
    height_t = 0.35 * face_px * open_t * thing.make.openness
    # A row of discs: as wide as the vowel is closed.
    for offset in np.linspace(-1, 1, 5) * 0.3 * face_px * (1.3 - thing.make.openness):
        _shape(frames_thwc, _DISC, _DARK, center + [offset, 0.4 * face_px], height_t)
