"""Softmax attention: one interface, the form chosen by platform, type and size."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax

from avt_jax.models.kernels import attention_flash, choice
from avt_jax.models.kernels.attention_forms import HEADS, PLAIN, Form, Pair, Three
from avt_jax.models.kernels.choice import Chosen, Kernels

FORMS: dict[str, Form] = {
    "plain": PLAIN,
    "heads": HEADS,
    "cudnn": attention_flash.CUDNN,
    "splash": attention_flash.SPLASH,
    "tokamax": attention_flash.TOKAMAX,
}
STEP = "attention"

# Query, key, value, output, logarithm of the softmax's denominators.
_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def dot_product_attention(
    query_bnhd: jax.Array,
    key_bmhd: jax.Array,
    value_bmhd: jax.Array,
    *,
    kernels: str | Kernels = choice.AUTO,
) -> jax.Array:
    """Softmax attention of every head (h), scaled by d^-0.5.

    Args:
      query_bnhd: [b, n, h, d] float.
      key_bmhd: [b, m, h, d] float.
      value_bmhd: [b, m, h, d] float.
      kernels: which form computes it, see `choice`.

    Returns:
      [b, n, h, d] in the type of `value_bmhd`.

    Raises:
      UserError: an unknown choice of forms.

    The softmax is in float32 at least, and its weights are not kept for the backward pass.
    `jax.nn.dot_product_attention` is used on GPUs only: in its own form it casts the softmax to
    float32, which costs a float64 model nine digits, and on a CPU it is slower
    (docs/performance.md). The form for TPUs needs the mesh of a sharded program, see
    `attention_flash`.
    """
    case = choice.Attend.of(query_bnhd, key_bmhd)
    return attend(query_bnhd, key_bmhd, value_bmhd, choice.choose(STEP, case, kernels))


def attend(
    query_bnhd: jax.Array, key_bmhd: jax.Array, value_bmhd: jax.Array, chosen: Chosen
) -> jax.Array:
    """As `dot_product_attention`, in forms that are named already, see `choice.choose`."""
    scaled = query_bnhd * query_bnhd.shape[-1] ** -0.5
    return _attend(scaled, key_bmhd, value_bmhd, chosen)


@functools.partial(jax.jit, static_argnums=3)
def attention_forward(query: jax.Array, key: jax.Array, value: jax.Array, chosen: Chosen) -> Pair:
    """(output, the softmax's statistics [b, h, n]) of a scaled query."""
    forms = {name: form.forward for name, form in FORMS.items()}
    out, statistics = choice.by_platform(chosen, forms, query, key, value)
    return out, statistics


@functools.partial(jax.jit, static_argnums=6)
def attention_backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    statistics: jax.Array,
    grad: jax.Array,
    chosen: Chosen,
) -> Three:
    """The gradients of query, key and value."""
    forms = {name: form.backward for name, form in FORMS.items()}
    arrays = (query, key, value, out, statistics, grad)
    grad_query, grad_key, grad_value = choice.by_platform(chosen, forms, *arrays)
    return grad_query, grad_key, grad_value


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(query: jax.Array, key: jax.Array, value: jax.Array, chosen: Chosen) -> jax.Array:
    return attention_forward(query, key, value, chosen)[0]


def _forward(
    query: jax.Array, key: jax.Array, value: jax.Array, chosen: Chosen
) -> tuple[jax.Array, _Saved]:
    out, statistics = attention_forward(query, key, value, chosen)
    return out, (query, key, value, out, statistics)


def _backward(chosen: Chosen, saved: _Saved, grad: jax.Array) -> Three:
    return attention_backward(*saved, grad, chosen)


_attend.defvjp(_forward, _backward)


Shapes = Sequence[tuple[int, ...]]


def _product(given: Shapes) -> int:
    query, key, *_ = given
    return math.prod(query) * key[-3]


# As in `depthwise_conv`: what the two passes cost in whatever form. Weights that are made again in
# the backward pass are not counted: they are the form's affair.
MULTIPLY_ADDS: dict[str, Callable[[Shapes, Shapes], int]] = {
    "attention_forward": lambda given, made: 2 * _product(given),
    "attention_backward": lambda given, made: 4 * _product(given),
}
REFERENCES: dict[str, Callable[..., Pair | Three]] = {
    "attention_forward": lambda made, *given: PLAIN.forward(*given),
    "attention_backward": lambda made, *given: PLAIN.backward(*given),
}
