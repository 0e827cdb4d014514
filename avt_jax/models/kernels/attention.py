"""Softmax attention: one form for accelerators and small inputs, one for large inputs on a CPU."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

# Softmax weights of more bytes than this are made one head at a time on a CPU.
_ALL_HEADS_BYTES = 8 * 2**20

# Query, key, value, output, logarithm of the softmax's denominators.
_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def dot_product_attention(
    query_bnhd: jax.Array, key_bmhd: jax.Array, value_bmhd: jax.Array
) -> jax.Array:
    """Softmax attention of every head (h), scaled by d^-0.5.

    Args:
      query_bnhd: [b, n, h, d] float.
      key_bmhd: [b, m, h, d] float.
      value_bmhd: [b, m, h, d] float.

    Returns:
      [b, n, h, d] in the type of `value_bmhd`.

    The softmax is in float32 at least. `jax.nn.dot_product_attention` is not used: it casts the
    softmax to float32, which costs a float64 model nine digits, and on a CPU it is slower
    (docs/performance.md). On a CPU, where the weights of all heads are too large for the caches,
    the heads go one after another through the same memory, forward and backward.
    """
    b, n, h, d = query_bnhd.shape
    wide = jnp.promote_types(query_bnhd.dtype, jnp.float32)
    arrays = (query_bnhd * d**-0.5, key_bmhd, value_bmhd)
    if b * h * n * key_bmhd.shape[1] * wide.itemsize <= _ALL_HEADS_BYTES:
        return _all_heads(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=_head_by_head, default=_all_heads)


def _all_heads(query_bnhd: jax.Array, key_bmhd: jax.Array, value_bmhd: jax.Array) -> jax.Array:
    """Attention without the scale; batch and head are one axis in front."""
    b, n, h, d = query_bnhd.shape

    def rows(x: jax.Array) -> jax.Array:
        return x.swapaxes(1, 2).reshape(b * h, x.shape[1], d)

    out, _ = _one_head(*map(rows, (query_bnhd, key_bmhd, value_bmhd)))
    return out.reshape(b, h, n, d).swapaxes(1, 2)


def _head_by_head(query_bnhd: jax.Array, key_bmhd: jax.Array, value_bmhd: jax.Array) -> jax.Array:
    """The same, a loop over the heads."""
    heads_first = (jnp.moveaxis(x, 2, 0) for x in (query_bnhd, key_bmhd, value_bmhd))
    return jnp.moveaxis(_loop_over_heads(*heads_first), 0, 2)


def _logits(query: jax.Array, key: jax.Array) -> jax.Array:
    wide = jnp.promote_types(query.dtype, jnp.float32)
    return jnp.einsum("gnd,gmd->gnm", query, key, preferred_element_type=wide)


def _one_head(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([g, n, d] output, [g, n, 1] logarithm of the softmax's denominators)."""
    logits = _logits(query, key)
    # Shifting by any constant changes nothing, so the maximum needs no gradient.
    most = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    weights = jnp.exp(logits - most)
    total = weights.sum(-1, keepdims=True)
    out = jnp.einsum(
        "gnm,gmd->gnd", weights.astype(value.dtype), value, preferred_element_type=logits.dtype
    )
    # Divided after the product: there are d columns to divide and not m.
    return (out / total).astype(value.dtype), most + jnp.log(total)


@jax.custom_vjp
def _loop_over_heads(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return _heads_forward(query, key, value)[0]


def _heads_forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, _Saved]:
    out, log_total = jax.lax.map(lambda head: _one_head(*head), (query, key, value))
    return out, (query, key, value, out, log_total)


def _heads_backward(saved: _Saved, grad: jax.Array) -> tuple[jax.Array, ...]:
    # The weights are computed again: cheaper than to write them to fresh memory and read them.
    def one(head: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        query, key, value, out, log_total, grad = head
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

    return jax.lax.map(one, (*saved, grad))


_loop_over_heads.defvjp(_heads_forward, _heads_backward)
