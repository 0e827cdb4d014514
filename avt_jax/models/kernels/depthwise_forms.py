"""The forms of the depthwise 3-D convolution and of the gradient of its kernel.

A form of the convolution takes (x [b, t, h, w, c], kernel [kt, kh, kw, c]) and gives
[b, t, h, w, c] in the type of x. One of the kernel's gradient takes (x, gradient of the output,
shape of the kernel) and gives that shape, in float32 at least. All sums are. `choice` says which
runs where.

On a sharded batch no form adds up over the batch within a loop: that would be one exchange between
the devices in every round.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Up to this many taps one fused expression wins; beyond it the compiler no longer fuses well, and
# a loop over the time taps, each with its spatial taps in one expression, is faster.
_MAX_FUSED_TAPS = 27
# Positions of a row that one fused expression adds up. More are slower, as are those whose sums
# of all taps do not stay in the first cache.
_COLUMNS, _FEWER_COLUMNS = 7, 4
_MANY_SUMS_BYTES = 60_000

# Columns of a matrix unit, a TPU's before v6.
_MATRIX_UNIT = 128

# (kt, kh, kw, c).
KernelShape = tuple[int, int, int, int]

_CHANNELS_LAST = ("NDHWC", "DHWIO", "NDHWC")
# The kernel's gradient as a convolution: what was the batch is summed over, the channels are
# independent, and the gradient of the output is the kernel.
_OVER_BATCH = lax.ConvDimensionNumbers((4, 0, 1, 2, 3), (4, 0, 1, 2, 3), (3, 4, 0, 1, 2))


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """The type of sums of such numbers: float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


def _precision(dtype: jnp.dtype) -> lax.Precision | None:
    """Keeps float32 what it says on accelerators, whose products are of fewer bits by default."""
    return lax.Precision.HIGHEST if jnp.dtype(dtype).itemsize >= 4 else None


def _padding(kernel_shape: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(size // 2, size // 2) for size in kernel_shape[:3]]


def _pad(x: jax.Array, kernel_shape: tuple[int, ...], more_columns: int = 0) -> jax.Array:
    t, h, (left, right) = _padding(kernel_shape)
    return jnp.pad(x, [(0, 0), t, h, (left, right + more_columns), (0, 0)])


def shifted(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A sum of shifted multiply-adds: no products beyond those needed, on the vector units."""
    kt, kh, kw, _ = kernel.shape
    padded = _pad(x, kernel.shape)
    kernel = kernel.astype(accumulator(x.dtype))

    def plane(i: int | jax.Array, total: jax.Array) -> jax.Array:
        weights = lax.dynamic_index_in_dim(kernel, i, keepdims=False)
        rows = lax.dynamic_slice_in_dim(padded, i, x.shape[1], axis=1)
        for j in range(kh):
            for k in range(kw):
                window = rows[:, :, j : j + x.shape[2], k : k + x.shape[3]]
                total += window.astype(kernel.dtype) * weights[j, k]
        return total

    total = jnp.zeros(x.shape, kernel.dtype)
    if kt * kh * kw <= _MAX_FUSED_TAPS:
        for i in range(kt):
            total = plane(i, total)
    else:
        total = lax.fori_loop(0, kt, plane, total)
    return total.astype(x.dtype)


def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's grouped convolution: 100 times too slow on a CPU, good on a TPU with many channels."""
    return lax.conv_general_dilated(
        x,
        kernel[:, :, :, None].astype(x.dtype),
        (1, 1, 1),
        _padding(kernel.shape),
        dimension_numbers=_CHANNELS_LAST,
        feature_group_count=x.shape[-1],
        precision=_precision(x.dtype),
    )


def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """An ordinary convolution on the matrix unit, its kernel [kt, kh, kw, c, c] a diagonal."""
    diagonal = kernel[..., None] * jnp.eye(x.shape[-1], dtype=kernel.dtype)
    return lax.conv_general_dilated(
        x,
        diagonal.astype(x.dtype),
        (1, 1, 1),
        _padding(kernel.shape),
        dimension_numbers=_CHANNELS_LAST,
        precision=_precision(x.dtype),
    )


def packed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As `dense`, with as many columns side by side as the matrix unit has room for.

    Neighbouring columns are one position with more channels, which moves nothing in memory. Of 64
    channels two columns fill the unit: half the positions, and 3 blocks of columns where a kernel
    has 5 taps.
    """
    (b, t, h, w, c), (kt, kh, kw, _) = x.shape, kernel.shape
    group = max(1, _MATRIX_UNIT // c)
    missing = -w % group
    reach = -(-(kw // 2) // group)
    # The tap between a column within a block and one within a block some blocks away.
    apart = group * np.arange(-reach, reach + 1)[:, None, None] + kw // 2
    tap = apart + np.arange(group)[:, None] - np.arange(group)
    within = (tap >= 0) & (tap < kw)
    weights = kernel[:, :, np.clip(tap, 0, kw - 1)] * within[..., None]
    wide = weights.transpose(0, 1, 2, 3, 5, 4)[..., None] * jnp.eye(c, dtype=kernel.dtype)[:, None]
    x = jnp.pad(x, [*[(0, 0)] * 3, (0, missing), (0, 0)])
    out = lax.conv_general_dilated(
        x.reshape(b, t, h, -1, group * c),
        wide.reshape(kt, kh, -1, group * c, group * c).astype(x.dtype),
        (1, 1, 1),
        [(kt // 2, kt // 2), (kh // 2, kh // 2), (reach, reach)],
        dimension_numbers=_CHANNELS_LAST,
        precision=_precision(x.dtype),
    )
    return out.reshape(b, t, h, w + missing, c)[:, :, :, :w]


def kernel_gradient_taps(x: jax.Array, grad: jax.Array, shape: KernelShape) -> jax.Array:
    """A loop over the taps, each one pass over both arrays."""
    kt, kh, kw, _ = shape
    padded = _pad(x, shape)
    dtype = accumulator(x.dtype)

    def tap(index: jax.Array) -> jax.Array:
        start = (0, index // (kh * kw), index // kw % kh, index % kw, 0)
        window = lax.dynamic_slice(padded, start, x.shape)
        return (window.astype(dtype) * grad.astype(dtype)).sum((1, 2, 3))

    taps = lax.map(tap, jnp.arange(kt * kh * kw))
    return taps.sum(1).reshape(shape)


def kernel_gradient_rows(x: jax.Array, grad: jax.Array, shape: KernelShape) -> jax.Array:
    """All taps at once, a piece of a row after the other, for a CPU's caches.

    What a piece of the gradient's row meets of the input is [kt, kh, a few columns, c]: it stays in
    the cache while all taps are taken.
    """
    (kt, kh, kw, c), (b, t, h, w, _) = shape, x.shape
    dtype = accumulator(x.dtype)
    many = math.prod(shape) * dtype.itemsize > _MANY_SUMS_BYTES
    pieces = -(-w // (_FEWER_COLUMNS if many else _COLUMNS))
    columns = -(-w // pieces)
    missing = pieces * columns - w
    padded = _pad(x.astype(dtype), shape, missing)
    grad = jnp.pad(grad.astype(dtype), [*[(0, 0)] * 3, (0, missing), (0, 0)])

    def frame(i: jax.Array) -> jax.Array:
        def piece(number: jax.Array, total: jax.Array) -> jax.Array:
            row, first = number // pieces, number % pieces * columns
            # Sliced anew for each position and not once: a slice that many read is a copy.
            for column in range(columns):
                start = (0, i, row, first + column, 0)
                window = lax.dynamic_slice(padded, start, (b, kt, kh, kw, c))
                total += window * lax.dynamic_slice(grad, start, (b, 1, 1, 1, c))
            return total

        return lax.fori_loop(0, h * pieces, piece, jnp.zeros((b, kt, kh, kw, c), dtype))

    return lax.map(frame, jnp.arange(t)).sum((0, 1))


def kernel_gradient_grouped(x: jax.Array, grad: jax.Array, shape: KernelShape) -> jax.Array:
    """The gradient that XLA's grouped convolution has: one convolution with a batch per channel."""
    return _kernel_gradient(x, grad, shape, x.shape[-1])[..., 0]


def kernel_gradient_dense(x: jax.Array, grad: jax.Array, shape: KernelShape) -> jax.Array:
    """The diagonal of the gradient that an ordinary convolution's kernel has."""
    return jnp.diagonal(_kernel_gradient(x, grad, shape, 1), axis1=3, axis2=4)


def _kernel_gradient(x: jax.Array, grad: jax.Array, shape: KernelShape, groups: int) -> jax.Array:
    """[kt, kh, kw, c / groups, c]."""
    found = lax.conv_general_dilated(
        x,
        grad,
        (1, 1, 1),
        _padding(shape),
        dimension_numbers=_OVER_BATCH,
        batch_group_count=groups,
        precision=_precision(x.dtype),
        preferred_element_type=accumulator(x.dtype),
    )
    return found.swapaxes(3, 4) if groups > 1 else found


FORWARD: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "shifted": shifted,
    "grouped": grouped,
    "dense": dense,
    "packed": packed,
}
KERNEL_GRADIENT: dict[str, Callable[..., jax.Array]] = {
    "taps": kernel_gradient_taps,
    "rows": kernel_gradient_rows,
    "grouped": kernel_gradient_grouped,
    "dense": kernel_gradient_dense,
}
