"""The depthwise 3-D convolution for NVIDIA GPUs, in Pallas: one pass over memory for all taps.

A program of the convolution makes a few rows of some columns and channels. A row of the input is
loaded once for each tap along the row, and serves all output rows that it reaches. A program of
the kernel's gradient goes over some rows of a frame for one tap in time and keeps the sums of all
spatial taps; what it gives is summed by XLA. Loads beyond an edge are masked: nothing is padded.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from avt_jax.models.kernels import depthwise_forms
from avt_jax.models.kernels.depthwise_forms import KernelShape
from avt_jax.models.kernels.spread import can_divide, on_each_device

# Channels, columns and rows of a program's tile. Triton wants powers of two for the first two.
_CHANNELS, _COLUMNS, _ROWS = 64, 8, 4
# Of the kernel's gradient: every tap has sums as large as the tile.
_GRADIENT_COLUMNS, _GRADIENT_ROWS = 4, 8
# Sums of so many spatial taps stay in registers.
_MOST_TAPS = 25


def can(x: jax.Array, kernel_shape: tuple[int, ...]) -> bool:
    """Whether these kernels can do a case: the batch is known, offsets fit in 32 bits."""
    return (
        can_divide(x) and math.prod(x.shape) < 2**31 and math.prod(kernel_shape[1:3]) <= _MOST_TAPS
    )


def correlation(x: jax.Array, kernel: jax.Array, *, interpret: bool = False) -> jax.Array:
    """The convolution; where it cannot be had, the sum of shifted products.

    Args:
      x: [b, t, h, w, c].
      kernel: [kt, kh, kw, c].
      interpret: run it without a GPU, slowly, for tests.
    """
    if not can(x, kernel.shape):
        return depthwise_forms.shifted(x, kernel)
    kernel = kernel.astype(depthwise_forms.accumulator(x.dtype))
    run = functools.partial(_correlation, interpret=interpret)
    found: jax.Array = on_each_device(run, x, shared=(kernel,))
    return found


def kernel_gradient(
    x: jax.Array, grad: jax.Array, shape: KernelShape, *, interpret: bool = False
) -> jax.Array:
    """The gradient of a kernel of a shape; where it cannot be had, by a loop over the taps."""
    if not can(x, shape):
        return depthwise_forms.kernel_gradient_taps(x, grad, shape)
    run = functools.partial(_kernel_gradient, shape=shape, interpret=interpret)
    found: jax.Array = on_each_device(run, x, grad)
    return found.sum((0, 1))


def _call(kernel: Any, grid: tuple[int, ...], out: jax.ShapeDtypeStruct, warps: int) -> Any:
    # Imported here: loading Pallas takes a while, and only a GPU needs it.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    return functools.partial(
        pl.pallas_call,
        kernel,
        out_shape=out,
        grid=grid,
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=2),
        name=kernel.func.__name__.strip("_"),
    )


def _divide(number: jax.Array, by: int) -> tuple[jax.Array, jax.Array]:
    """(quotient, remainder) of what is not negative: NumPy's operators do more than is needed."""
    divisor = number.dtype.type(by)
    return lax.div(number, divisor), lax.rem(number, divisor)


def _tile_channels(c: int) -> int:
    return min(_CHANNELS, 1 << (c - 1).bit_length())


def _correlation(x: jax.Array, kernel: jax.Array, *, interpret: bool) -> jax.Array:
    (b, t, h, w, c), (kt, kh, kw, _) = x.shape, kernel.shape
    channels = _tile_channels(c)
    grid = (b * t, -(-h // _ROWS) * -(-w // _COLUMNS), -(-c // channels))
    out = jax.ShapeDtypeStruct((x.size,), x.dtype)
    body = functools.partial(
        _correlation_tile, size=(t, h, w, c), taps=(kt, kh, kw), channels=channels
    )
    made: jax.Array = _call(body, grid, out, warps=4)(interpret=interpret)(
        x.reshape(-1), kernel.reshape(-1)
    )
    return made.reshape(x.shape)


def _correlation_tile(
    x_ref: Any,
    kernel_ref: Any,
    out_ref: Any,
    *,
    size: tuple[int, int, int, int],
    taps: tuple[int, int, int],
    channels: int,
) -> None:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    (t, h, w, c), (kt, kh, kw) = size, taps
    number, place = pl.program_id(0), pl.program_id(1)
    clip, frame = _divide(number, t)
    row_tile, column_tile = _divide(place, -(-w // _COLUMNS))
    first_row = row_tile * _ROWS
    column = (column_tile * _COLUMNS + jnp.arange(_COLUMNS))[:, None]
    channel = (pl.program_id(2) * channels + jnp.arange(channels))[None, :]
    is_channel = channel < c

    def at(frame: Any, row: Any, shift: int) -> tuple[jax.Array, jax.Array]:
        """(offsets, whether they are within) of a row's columns, shifted."""
        moved = column + shift
        within = (frame >= 0) & (frame < t) & (row >= 0) & (row < h)
        within = within & (moved >= 0) & (moved < w) & is_channel
        return (((clip * t + frame) * h + row) * w + moved) * c + channel, within

    def plane(i: jax.Array, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        rows = list(totals)
        weights = {}
        for j in range(kh):
            for k in range(kw):
                offset = ((i * kh + j) * kw + k) * c + channel
                weights[j, k] = triton.load(kernel_ref.at[offset], mask=is_channel, other=0.0)
        for r in range(_ROWS + kh - 1):
            for k in range(kw):
                offset, within = at(frame + i - kt // 2, first_row + r - kh // 2, k - kw // 2)
                window = triton.load(x_ref.at[offset], mask=within, other=0.0)
                window = window.astype(kernel_ref.dtype)
                for q in range(_ROWS):
                    if 0 <= r - q < kh:
                        rows[q] += window * weights[r - q, k]
        return tuple(rows)

    zeros = (jnp.zeros((_COLUMNS, channels), kernel_ref.dtype),) * _ROWS
    for q, total in enumerate(lax.fori_loop(0, kt, plane, zeros)):
        offset, within = at(frame, first_row + q, 0)
        triton.store(out_ref.at[offset], total.astype(out_ref.dtype), mask=within)


def _kernel_gradient(
    x: jax.Array, grad: jax.Array, *, shape: KernelShape, interpret: bool
) -> jax.Array:
    """[b, parts, kt, kh, kw, c], to be summed over the first two."""
    (b, t, h, w, c), kt = x.shape, shape[0]
    channels = _tile_channels(c)
    pieces = -(-h // _GRADIENT_ROWS)
    grid = (b * t * pieces, kt, -(-c // channels))
    dtype = depthwise_forms.accumulator(x.dtype)
    out = jax.ShapeDtypeStruct((b * t * pieces * math.prod(shape),), dtype)
    body = functools.partial(
        _kernel_gradient_tile, size=(t, h, w, c), taps=shape[:3], channels=channels
    )
    made: jax.Array = _call(body, grid, out, warps=2)(interpret=interpret)(
        x.reshape(-1), grad.reshape(-1)
    )
    return made.reshape(b, t * pieces, *shape)


def _kernel_gradient_tile(
    x_ref: Any,
    grad_ref: Any,
    out_ref: Any,
    *,
    size: tuple[int, int, int, int],
    taps: tuple[int, int, int],
    channels: int,
) -> None:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    (t, h, w, c), (kt, kh, kw) = size, taps
    number, i = pl.program_id(0), pl.program_id(1)
    pieces = -(-h // _GRADIENT_ROWS)
    clip_frame, part = _divide(number, pieces)
    clip, frame = _divide(clip_frame, t)
    first_row = part * _GRADIENT_ROWS
    # The rows are the input's; the output's gradient is that of the frame it reaches by this tap.
    out_frame = frame - i + kt // 2
    channel = (pl.program_id(2) * channels + jnp.arange(channels))[None, :]
    is_channel = channel < c
    tiles = -(-w // _GRADIENT_COLUMNS)

    def load(ref: Any, frame: Any, row: Any, column: jax.Array) -> jax.Array:
        within = (row >= 0) & (row < h) & (column >= 0) & (column < w) & is_channel
        within = within & (out_frame >= 0) & (out_frame < t)
        offset = (((clip * t + frame) * h + row) * w + column) * c + channel
        found: jax.Array = triton.load(ref.at[offset], mask=within, other=0.0)
        return found.astype(out_ref.dtype)

    def piece(place: jax.Array, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        row_in_part, tile = _divide(place, tiles)
        row = first_row + row_in_part
        column = (tile * _GRADIENT_COLUMNS + jnp.arange(_GRADIENT_COLUMNS))[:, None]
        windows = [load(x_ref, frame, row, column + k - kw // 2) for k in range(kw)]
        found = []
        for j in range(kh):
            back = load(grad_ref, out_frame, row - j + kh // 2, column)
            # A column beyond the edge has no output, so no gradient.
            found += [window * back for window in windows]
        return tuple(total + one for total, one in zip(totals, found, strict=True))

    zeros = (jnp.zeros((_GRADIENT_COLUMNS, channels), out_ref.dtype),) * (kh * kw)
    totals = lax.fori_loop(0, _GRADIENT_ROWS * tiles, piece, zeros)
    lane = pl.program_id(2) * channels + jnp.arange(channels)
    for tap, total in enumerate(totals):
        offset = ((number * kt + i) * kh * kw + tap) * c + lane
        triton.store(out_ref.at[offset], total.sum(0), mask=lane < c)
