"""Depthwise 3-D convolution without XLA's grouped convolution.

XLA lowers a grouped convolution with one channel per group to loops that are 100 times slower than
need be on CPUs and 10 to 30 times on GPUs (jax issues 13800 and 23713). Here it is a sum of shifted
multiply-adds, with a backward pass of the same kind. docs/performance.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Up to this many taps one fused expression wins; beyond it the compiler no longer fuses well, and
# a loop over the time taps, each with its spatial taps in one expression, is faster.
_MAX_FUSED_TAPS = 27


def depthwise_conv3d(
    x_bthwc: jax.Array, kernel_xyzc: jax.Array, bias_c: jax.Array | None = None
) -> jax.Array:
    """Each channel convolved with its own 3-D kernel; stride 1, zero padding to the same size.

    Args:
      x_bthwc: [b, t, h, w, c] float.
      kernel_xyzc: [kt, kh, kw, c] float, odd sizes; correlation, as in all deep-learning libraries.
      bias_c: [c] float, or None.

    Returns:
      [b, t, h, w, c] in the type of `x_bthwc`; sums are in float32 at least.

    Raises:
      ValueError: an even kernel size, or channels that differ.
    """
    if any(size % 2 == 0 for size in kernel_xyzc.shape[:3]):
        raise ValueError(f"kernel sizes must be odd, got {kernel_xyzc.shape[:3]}")
    if kernel_xyzc.shape[3] != x_bthwc.shape[-1]:
        raise ValueError(
            f"the kernel has {kernel_xyzc.shape[3]} channels and the input {x_bthwc.shape[-1]}"
        )
    out = _conv(x_bthwc, kernel_xyzc)
    return out if bias_c is None else out + bias_c.astype(out.dtype)


def _accumulator(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _pad(x: jax.Array, kernel_shape: tuple[int, ...]) -> jax.Array:
    return jnp.pad(x, [(0, 0), *((size // 2, size // 2) for size in kernel_shape[:3]), (0, 0)])


def _window(padded: jax.Array, tap: tuple[Any, ...], shape: tuple[int, ...]) -> jax.Array:
    """The part of a padded array that one tap of the kernel sees."""
    return lax.dynamic_slice(padded, (0, *tap, 0), shape)


@jax.jit
def depthwise_correlation(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution without its checks, bias and gradient."""
    kt, kh, kw, _ = kernel.shape
    padded = _pad(x, kernel.shape)
    kernel = kernel.astype(_accumulator(x.dtype))

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


@jax.jit
def depthwise_kernel_gradient(x: jax.Array, grad: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient of the kernel: of its shape and type, from the input and what comes back."""
    kt, kh, kw, _ = kernel.shape
    padded = _pad(x, kernel.shape)
    dtype = _accumulator(x.dtype)

    def tap(index: jax.Array) -> jax.Array:
        i, j, k = index // (kh * kw), index // kw % kh, index % kw
        window = _window(padded, (i, j, k), x.shape)
        return (window.astype(dtype) * grad.astype(dtype)).sum((0, 1, 2, 3))

    taps = lax.map(tap, jnp.arange(kt * kh * kw))
    return taps.reshape(kernel.shape).astype(kernel.dtype)


@jax.custom_vjp
def _conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return depthwise_correlation(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise_correlation(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return depthwise_correlation(grad, kernel[::-1, ::-1, ::-1]), depthwise_kernel_gradient(
        x, grad, kernel
    )


_conv.defvjp(_forward, _backward)


Shapes = Sequence[tuple[int, ...]]


def _correlation_multiply_adds(given: Shapes, made: Shapes) -> int:
    _, kernel = given
    return math.prod(made[0]) * math.prod(kernel[-4:-1])


def _kernel_gradient_multiply_adds(given: Shapes, made: Shapes) -> int:
    return math.prod(given[0]) * math.prod(made[0][-4:-1])


# What the two products cost, in whatever form they are computed: {name of a function that is called
# under `jax.jit`: its multiply-adds from (shapes of its arguments, shapes of its results)}.
MULTIPLY_ADDS: dict[str, Callable[[Shapes, Shapes], int]] = {
    "depthwise_correlation": _correlation_multiply_adds,
    "depthwise_kernel_gradient": _kernel_gradient_multiply_adds,
}
