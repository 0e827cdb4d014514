"""Depthwise 3-D convolution: one interface, the form chosen by platform and shape.

XLA lowers a grouped convolution with one channel per group to loops that are 100 times slower than
need be on CPUs and 10 to 30 times on GPUs (jax issues 13800 and 23713); on a TPU the matrix unit
does it best. `depthwise_forms` has the forms, `choice` the rules, docs/performance.md the
measurements.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import jax

from avt_jax.models.kernels import choice, depthwise_forms, depthwise_triton
from avt_jax.models.kernels.choice import Chosen, Kernels
from avt_jax.models.kernels.depthwise_forms import KernelShape

# Of the three passes: forward, gradient of the input, gradient of the kernel.
_Choices = tuple[Chosen, Chosen, Chosen]
PASSES = ("depthwise forward", "depthwise input gradient", "depthwise kernel gradient")

# {name: form}, see `depthwise_forms`.
FORWARD: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    **depthwise_forms.FORWARD,
    "triton": depthwise_triton.correlation,
}
KERNEL_GRADIENT: dict[str, Callable[..., jax.Array]] = {
    **depthwise_forms.KERNEL_GRADIENT,
    "triton": depthwise_triton.kernel_gradient,
}


def depthwise_conv3d(
    x_bthwc: jax.Array,
    kernel_xyzc: jax.Array,
    *,
    kernels: str | Kernels = choice.AUTO,
) -> jax.Array:
    """Each channel convolved with its own 3-D kernel; stride 1, zero padding to the same size.

    Args:
      x_bthwc: [b, t, h, w, c] float.
      kernel_xyzc: [kt, kh, kw, c] float, odd sizes; correlation, as in all deep-learning libraries.
      kernels: which forms compute it, see `choice`.

    Returns:
      [b, t, h, w, c] in the type of `x_bthwc`; sums are in float32 at least. The forms on a matrix
      unit round the kernel to that type.

    Raises:
      ValueError: an even kernel size, or channels that differ.
      UserError: an unknown choice of forms.
    """
    if any(size % 2 == 0 for size in kernel_xyzc.shape[:3]):
        raise ValueError(f"kernel sizes must be odd, got {kernel_xyzc.shape[:3]}")
    if kernel_xyzc.shape[3] != x_bthwc.shape[-1]:
        raise ValueError(
            f"the kernel has {kernel_xyzc.shape[3]} channels and the input {x_bthwc.shape[-1]}"
        )
    case = choice.Conv.of(x_bthwc, kernel_xyzc.shape)
    forward, input_gradient, kernel_gradient = (
        choice.choose(step, case, kernels) for step in PASSES
    )
    return _conv(x_bthwc, kernel_xyzc, (forward, input_gradient, kernel_gradient))


@functools.partial(jax.jit, static_argnums=2)
def depthwise_correlation(x: jax.Array, kernel: jax.Array, chosen: Chosen) -> jax.Array:
    """The convolution without its checks, bias and gradient."""
    found: jax.Array = choice.by_platform(chosen, FORWARD, x, kernel)
    return found


@functools.partial(jax.jit, static_argnums=(2, 3))
def depthwise_kernel_gradient(
    x: jax.Array, grad: jax.Array, shape: KernelShape, chosen: Chosen
) -> jax.Array:
    """The gradient of a kernel of a shape, from the input and what comes back."""
    forms = {name: functools.partial(form, shape=shape) for name, form in KERNEL_GRADIENT.items()}
    found: jax.Array = choice.by_platform(chosen, forms, x, grad)
    return found


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, choices: _Choices) -> jax.Array:
    return depthwise_correlation(x, kernel, choices[0])


def _forward(
    x: jax.Array, kernel: jax.Array, choices: _Choices
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise_correlation(x, kernel, choices[0]), (x, kernel)


def _backward(
    choices: _Choices, saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    # Of an odd kernel with stride 1 the gradient of the input is the same with the kernel mirrored.
    grad_x = depthwise_correlation(grad, kernel[::-1, ::-1, ::-1], choices[1])
    grad_kernel = depthwise_kernel_gradient(x, grad, kernel.shape, choices[2])
    return grad_x, grad_kernel.astype(kernel.dtype)


_conv.defvjp(_forward, _backward)


Shapes = Sequence[tuple[int, ...]]


# Where a loop keeps some values and computes others again, a call is split, and its parts take or
# make constants besides the arrays; a part without the arrays multiplies nothing.
def _kernel(shapes: Shapes) -> tuple[int, ...] | None:
    return min((shape for shape in shapes if len(shape) >= 4), key=len, default=None)


def _clips(shapes: Shapes) -> int:
    """Numbers in the input or what comes back, of which there may be two."""
    known = Counter(shape for shape in shapes if len(shape) >= 5)
    return math.prod(known.most_common(1)[0][0]) if known else 0


def _correlation_multiply_adds(given: Shapes, made: Shapes) -> int:
    kernel = _kernel(given)
    return 0 if kernel is None else _clips(made) * math.prod(kernel[-4:-1])


def _kernel_gradient_multiply_adds(given: Shapes, made: Shapes) -> int:
    kernel = _kernel(made)
    return 0 if kernel is None else _clips(given) * math.prod(kernel[-4:-1])


# What the two products cost, in whatever form they are computed: {name of a function that is called
# under `jax.jit`: its multiply-adds from (shapes of its arguments, shapes of its results)}.
MULTIPLY_ADDS: dict[str, Callable[[Shapes, Shapes], int]] = {
    "depthwise_correlation": _correlation_multiply_adds,
    "depthwise_kernel_gradient": _kernel_gradient_multiply_adds,
}
# The same operations in the form that computes what is needed and no more, for other counters:
# {name: function of (shape of its result, its arguments)}.
REFERENCES: dict[str, Callable[..., jax.Array]] = {
    "depthwise_correlation": lambda made, x, kernel: depthwise_forms.shifted(x, kernel),
    "depthwise_kernel_gradient": lambda made, x, grad: depthwise_forms.kernel_gradient_taps(
        x, grad, made
    ),
}
