"""The forms of softmax attention, forward and backward.

A form's forward pass takes query [b, n, h, d], scaled, key and value [b, m, h, d], and gives the
output [b, n, h, d] in the value's type and the logarithm of the softmax's denominators [b, h, n].
Its backward pass takes these five and the output's gradient, and gives those of the first three:
the softmax's weights are made again, and not kept. Softmax and sums are in float32 at least.
`choice` says which form runs where;
those of libraries are in `attention_flash`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

Pair = tuple[jax.Array, jax.Array]
Three = tuple[jax.Array, jax.Array, jax.Array]


@dataclass(frozen=True)
class Form:
    """One way to compute attention.

    Attributes:
      forward: (query, key, value) -> (output, logarithms).
      backward: (query, key, value, output, logarithms, gradient) -> gradients of the first three.
    """

    forward: Callable[[jax.Array, jax.Array, jax.Array], Pair]
    backward: Callable[..., Three]


def _wide(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _logits(query: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.einsum("gnd,gmd->gnm", query, key, preferred_element_type=_wide(query))


def _group_forward(query: jax.Array, key: jax.Array, value: jax.Array) -> Pair:
    """([g, n, d] output, [g, n, 1] logarithms) of [g, n, d], [g, m, d], [g, m, d]."""
    logits = _logits(query, key)
    most = logits.max(-1, keepdims=True)
    weights = jnp.exp(logits - most)
    total = weights.sum(-1, keepdims=True)
    out = jnp.einsum(
        "gnm,gmd->gnd", weights.astype(value.dtype), value, preferred_element_type=logits.dtype
    )
    # Divided after the product: there are d columns to divide and not m.
    return (out / total).astype(value.dtype), most + jnp.log(total)


def _group_backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    log_total: jax.Array,
    grad: jax.Array,
) -> Three:
    # The weights are computed again: cheaper than to write them to fresh memory and read them.
    logits = _logits(query, key)
    weights = jnp.exp(logits - log_total)
    product = functools.partial(jnp.einsum, preferred_element_type=logits.dtype)
    inner = (grad.astype(logits.dtype) * out).sum(-1, keepdims=True)
    change = weights * (product("gnd,gmd->gnm", grad, value) - inner)
    change, weights = change.astype(key.dtype), weights.astype(grad.dtype)
    return (
        product("gnm,gmd->gnd", change, key).astype(query.dtype),
        product("gnm,gnd->gmd", change, query).astype(key.dtype),
        product("gnm,gnd->gmd", weights, grad).astype(value.dtype),
    )


def _rows(x: jax.Array) -> jax.Array:
    """[b, n, h, d] to [b * h, n, d]."""
    b, n, h, d = x.shape
    return x.swapaxes(1, 2).reshape(b * h, n, d)


def _heads(x: jax.Array, h: int) -> jax.Array:
    """[b * h, n, d] to [b, n, h, d]."""
    g, n, d = x.shape
    return x.reshape(g // h, h, n, d).swapaxes(1, 2)


def plain_forward(query: jax.Array, key: jax.Array, value: jax.Array) -> Pair:
    """All heads at once: batch and head are one axis in front."""
    b, n, h, _ = query.shape
    out, log_total = _group_forward(_rows(query), _rows(key), _rows(value))
    return _heads(out, h), log_total.reshape(b, h, n)


def plain_backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    log_total: jax.Array,
    grad: jax.Array,
) -> Three:
    """The gradients of `plain_forward`."""
    b, h, n = log_total.shape
    query, key, value, out, grad = map(_rows, (query, key, value, out, grad))
    found = _group_backward(query, key, value, out, log_total.reshape(b * h, n, 1), grad)
    grad_query, grad_key, grad_value = (_heads(x, h) for x in found)
    return grad_query, grad_key, grad_value


def _first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, 2, 0)


def heads_forward(query: jax.Array, key: jax.Array, value: jax.Array) -> Pair:
    """A loop over the heads, through the same memory: for a CPU's caches."""
    arrays = tuple(map(_first, (query, key, value)))
    out, log_total = jax.lax.map(lambda head: _group_forward(*head), arrays)
    return jnp.moveaxis(out, 0, 2), log_total[..., 0].swapaxes(0, 1)


def heads_backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    log_total: jax.Array,
    grad: jax.Array,
) -> Three:
    """The gradients of `heads_forward`."""
    arrays = tuple(map(_first, (query, key, value, out)))
    arrays += (log_total.swapaxes(0, 1)[..., None], _first(grad))
    found = jax.lax.map(lambda head: _group_backward(*head), arrays)
    grad_query, grad_key, grad_value = (jnp.moveaxis(x, 0, 2) for x in found)
    return grad_query, grad_key, grad_value


PLAIN = Form(plain_forward, plain_backward)
HEADS = Form(heads_forward, heads_backward)
