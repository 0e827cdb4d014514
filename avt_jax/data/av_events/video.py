"""Draws the visible half of AV-Events: one bright shape that moves in one of four ways.

The motion is the only thing that carries the label. Shape, colour, size, place, speed, phase,
direction, background and distractors are drawn from a random stream that knows neither the motion
nor the sound.

Units: pixels with the origin at the top left, x right, y down; seconds from the clip's start.
"""

from __future__ import annotations

import colorsys
import dataclasses
import functools
import math

import numpy as np

MOTIONS = ("sweep", "bounce", "circle", "pulse")

# Sides of the regular polygons an object may have; 0 stands for a disc.
_NUM_SIDES = (0, 3, 4, 6)


@dataclasses.dataclass(frozen=True)
class Shape:
    """A regular polygon or disc of one colour.

    Attributes:
      num_sides: 0 for a disc, otherwise >= 3.
      angle_rad: rotation of the polygon.
      color_c: red, green and blue in [0, 255].
    """

    num_sides: int
    angle_rad: float
    color_c: tuple[float, float, float]


def trajectory(
    motion: str, rng: np.random.Generator, *, time_sec: np.ndarray, size_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where the main object is, and how large, at every moment.

    Every motion takes the same random numbers from `rng`, so that what is drawn afterwards does not
    depend on which motion it was.

    Args:
      motion: one of MOTIONS.
      rng: source of size, place, extent, speed, phase and direction.
      time_sec: [t] float64 seconds after the clip's start.
      size_px: width and height of the square frame.

    Returns:
      (center_t2, radius_t): float64 [t, 2] as (x, y) in pixels; float64 [t] radius in pixels of the
      disc of equal area.

    Raises:
      ValueError: `motion` is not one of MOTIONS.
    """
    base_radius_px = size_px * rng.uniform(0.11, 0.16)
    extent_px = size_px * rng.uniform(0.20, 0.28)
    # Slow enough for four frames per second to follow, fast enough to repeat within a clip.
    period_sec = rng.uniform(1.3, 2.2)
    phase = rng.uniform()
    direction = 1.0 if rng.uniform() < 0.5 else -1.0
    place_x, place_y = rng.uniform(size=2)

    turn_t = direction * time_sec / period_sec + phase
    offset_x_t = np.zeros_like(time_sec)
    offset_y_t = np.zeros_like(time_sec)
    radius_t = np.full_like(time_sec, base_radius_px)
    reach_x_px = reach_y_px = 0.0
    if motion == "sweep":
        offset_x_t = extent_px * np.cos(2 * np.pi * turn_t)
        reach_x_px = extent_px
    elif motion == "bounce":
        # Free fall between two touches of the ground: a parabola in every period.
        within_t = np.mod(turn_t, 1.0)
        offset_y_t = extent_px * (1.0 - 8.0 * within_t * (1.0 - within_t))
        reach_y_px = extent_px
    elif motion == "circle":
        offset_x_t = extent_px * np.cos(2 * np.pi * turn_t)
        offset_y_t = extent_px * np.sin(2 * np.pi * turn_t)
        reach_x_px = reach_y_px = extent_px
    elif motion == "pulse":
        radius_t = base_radius_px * (1.05 + 0.5 * np.sin(2 * np.pi * turn_t))
    else:
        raise ValueError(f"motion must be one of {MOTIONS}, got {motion!r}")

    margin_px = float(radius_t.max())
    center_x = _place_within(place_x, margin_px + reach_x_px, size_px)
    center_y = _place_within(place_y, margin_px + reach_y_px, size_px)
    return np.stack([center_x + offset_x_t, center_y + offset_y_t], axis=-1), radius_t


def _place_within(unit: float, margin_px: float, size_px: int) -> float:
    """Maps [0, 1] to a coordinate at least `margin_px` from both edges (the middle if none is)."""
    margin_px = min(margin_px, size_px / 2)
    return margin_px + unit * (size_px - 2 * margin_px)


def draw_background(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """A dim linear gradient between two colours with still, fine noise over it.

    Args:
      rng: source of colours, direction and noise.
      size_px: width and height.

    Returns:
      uint8 [h, w, 3].
    """
    color_from_c = np.array(
        _random_color(rng, value_range=(0.08, 0.38), saturation_range=(0.1, 0.7))
    )
    color_to_c = np.array(_random_color(rng, value_range=(0.08, 0.38), saturation_range=(0.1, 0.7)))
    angle_rad = rng.uniform(0, 2 * np.pi)
    noise_std = rng.uniform(0.0, 6.0)
    axis = np.linspace(-0.5, 0.5, size_px, dtype=np.float32)
    slope_hw = 0.5 + (
        math.cos(angle_rad) * axis[None, :] + math.sin(angle_rad) * axis[:, None]
    ) / math.sqrt(2)
    image_hwc = color_from_c + slope_hw[..., None] * (color_to_c - color_from_c)
    # The same noise in all three channels: grain, not coloured confetti.
    image_hwc = image_hwc + noise_std * rng.standard_normal((size_px, size_px, 1), dtype=np.float32)
    return np.clip(image_hwc, 0, 255).astype(np.uint8)


def draw_frames(
    motion: str, rng: np.random.Generator, *, num_frames: int, frame_rate_hz: float, size_px: int
) -> np.ndarray:
    """Renders the picture of one clip.

    Args:
      motion: one of MOTIONS; the only thing that depends on the label.
      rng: source of all nuisances.
      num_frames: t, > 0.
      frame_rate_hz: frames per second, > 0.
      size_px: width and height, > 0.

    Returns:
      uint8 [t, h, w, 3] RGB.

    Raises:
      ValueError: `motion` is not one of MOTIONS.
    """
    time_sec = np.arange(num_frames) / frame_rate_hz
    center_t2, radius_t = trajectory(motion, rng, time_sec=time_sec, size_px=size_px)
    main_shape = _random_shape(rng, value_range=(0.85, 1.0), saturation_range=(0.0, 0.9))
    background_hwc = draw_background(rng, size_px)
    frames_thwc = np.broadcast_to(background_hwc, (num_frames, *background_hwc.shape)).copy()
    for _ in range(int(rng.integers(0, 3))):
        shape = _random_shape(rng, value_range=(0.3, 0.55), saturation_range=(0.2, 0.9))
        radius_px = size_px * rng.uniform(0.03, 0.06)
        start_2 = rng.uniform(0.05, 0.95, size=2) * size_px
        # Half of them stand still; the others drift by hundredths of the picture per second.
        speed_2 = rng.uniform(-0.04, 0.04, size=2) * size_px * float(rng.uniform() < 0.5)
        draw_shape(
            frames_thwc,
            shape,
            start_2 + time_sec[:, None] * speed_2,
            np.full(num_frames, radius_px),
        )
    draw_shape(frames_thwc, main_shape, center_t2, radius_t)
    return frames_thwc


def draw_shape(
    frames_thwc: np.ndarray, shape: Shape, center_t2: np.ndarray, radius_t: np.ndarray
) -> None:
    """Draws one moving shape into the frames, in place, with smooth edges.

    Args:
      frames_thwc: uint8 [t, h, w, 3], written to.
      shape: outline and colour.
      center_t2: float [t, 2] centre as (x, y) in pixels; may lie outside.
      radius_t: float [t] radius in pixels of the disc of equal area.
    """
    _, height_px, width_px, _ = frames_thwc.shape
    # A triangle's corners reach 1.56 radii from its centre; other shapes stay nearer.
    half_px = math.ceil(1.6 * float(radius_t.max())) + 2
    corner_t2 = np.floor(center_t2).astype(np.int64) - half_px
    grid = np.arange(2 * half_px, dtype=np.float32)
    x_tp = grid[None, :] - (center_t2[:, 0] - corner_t2[:, 0]).astype(np.float32)[:, None]
    y_tp = grid[None, :] - (center_t2[:, 1] - corner_t2[:, 1]).astype(np.float32)[:, None]
    distance_tpp = _shape_distance(shape, x_tp[:, None, :], y_tp[:, :, None])
    alpha_tpp = np.clip(radius_t.astype(np.float32)[:, None, None] - distance_tpp + 0.5, 0.0, 1.0)
    # Rows of width x 3 numbers: NumPy is slow where the last axis has three.
    rows_thw = frames_thwc.reshape(len(frames_thwc), height_px, width_px * 3, copy=False)
    alpha_tpw = np.repeat(alpha_tpp, 3, axis=-1)
    color_w = np.tile(np.asarray(shape.color_c, np.float32), width_px)
    for rows_hw, (x0, y0), alpha_pw in zip(rows_thw, corner_t2, alpha_tpw, strict=True):
        x_from, x_to = max(x0, 0), min(x0 + 2 * half_px, width_px)
        y_from, y_to = max(y0, 0), min(y0 + 2 * half_px, height_px)
        if x_from >= x_to or y_from >= y_to:
            continue
        alpha = alpha_pw[y_from - y0 : y_to - y0, 3 * (x_from - x0) : 3 * (x_to - x0)]
        patch = rows_hw[y_from:y_to, 3 * x_from : 3 * x_to]
        patch[...] = patch * (1.0 - alpha) + color_w[: patch.shape[1]] * alpha


def _shape_distance(shape: Shape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Radius of the equal-area shape whose outline passes through (x, y); broadcasts, pixels."""
    if shape.num_sides == 0:
        return np.hypot(x, y)
    side_angles = shape.angle_rad + 2 * np.pi * np.arange(shape.num_sides) / shape.num_sides
    to_sides = (np.float32(math.cos(a)) * x + np.float32(math.sin(a)) * y for a in side_angles)
    distance = functools.reduce(np.maximum, to_sides)
    half_angle = math.pi / shape.num_sides
    return distance * np.float32(math.sqrt(math.tan(half_angle) / half_angle))


def _random_shape(
    rng: np.random.Generator,
    *,
    value_range: tuple[float, float],
    saturation_range: tuple[float, float],
) -> Shape:
    """A random outline, rotation and colour."""
    num_sides = _NUM_SIDES[int(rng.integers(len(_NUM_SIDES)))]
    angle_rad = float(rng.uniform(0, 2 * np.pi))
    return Shape(
        num_sides,
        angle_rad,
        _random_color(rng, value_range=value_range, saturation_range=saturation_range),
    )


def _random_color(
    rng: np.random.Generator,
    *,
    value_range: tuple[float, float],
    saturation_range: tuple[float, float],
) -> tuple[float, float, float]:
    """Red, green, blue in [0, 255]: random hue, saturation and value within the given ranges."""
    hue = float(rng.uniform())
    red, green, blue = colorsys.hsv_to_rgb(
        hue, float(rng.uniform(*saturation_range)), float(rng.uniform(*value_range))
    )
    return 255.0 * red, 255.0 * green, 255.0 * blue
