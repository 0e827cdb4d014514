"""Forms of attention from libraries, which never write the softmax's weights to memory.

- "cudnn": `jax.nn.dot_product_attention(implementation="cudnn")`, for NVIDIA GPUs.
- "splash": JAX's Pallas kernel for TPUs; over several devices as `spread` says.
- "tokamax": the package's own choice; only where it is named.

Each is differentiated by its library. The gradient is that of a call made again in the backward
pass, whose results are then replaced by those kept from the forward pass, so that XLA drops the
call: no private function of a library is needed for it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from avt_jax.models.kernels.attention_forms import PLAIN, Form, Pair, Three
from avt_jax.models.kernels.spread import can_divide, on_each_device

_Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# Lanes of a TPU's vectors: lengths are padded to a multiple.
_LANES = 128
# A larger block's float32 logits do not fit in a TPU core's memory beside the rest.
_MOST_BLOCK = 512


def _is_statistic(leaf: Any, shape: tuple[int, ...]) -> bool:
    return getattr(leaf, "shape", None) == shape and leaf.dtype == jnp.float32


def _run(attend: _Attend, query: jax.Array, key: jax.Array, value: jax.Array) -> Pair:
    """(output, the softmax's statistics [..., n] float32) of a function of heads-first arrays."""
    out, back = jax.vjp(attend, query, key, value)
    found = [leaf for leaf in jax.tree.leaves(back) if _is_statistic(leaf, query.shape[:-1])]
    # A library that keeps none has its forward pass run again in the backward pass.
    return out, found[0] if len(found) == 1 else jnp.zeros(query.shape[:-1], jnp.float32)


def _run_back(
    attend: _Attend,
    arrays: tuple[jax.Array, jax.Array, jax.Array],
    out: jax.Array,
    statistics: jax.Array,
    grad: jax.Array,
) -> Three:
    """Gradients of `attend` at three arrays, from what `_run` gave."""
    made, back = jax.vjp(attend, *arrays)
    leaves, tree = jax.tree.flatten(back)
    if sum(_is_statistic(leaf, statistics.shape) for leaf in leaves) == 1:
        for i, leaf in enumerate(leaves):
            if leaf is made:
                leaves[i] = out
            elif _is_statistic(leaf, statistics.shape):
                leaves[i] = statistics
    grad_query, grad_key, grad_value = jax.tree.unflatten(tree, leaves)(grad)
    return grad_query, grad_key, grad_value


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, scale=1.0, implementation="cudnn")


def cudnn_forward(query: jax.Array, key: jax.Array, value: jax.Array) -> Pair:
    """The forward pass by cuDNN."""
    b, n, h, _ = query.shape
    out, back = jax.vjp(_cudnn, query, key, value)
    found = [leaf for leaf in jax.tree.leaves(back) if _is_statistic(leaf, (b, h, n))]
    return out, found[0] if len(found) == 1 else jnp.zeros((b, h, n), jnp.float32)


def cudnn_backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    statistics: jax.Array,
    grad: jax.Array,
) -> Three:
    """The gradients by cuDNN."""
    return _run_back(_cudnn, (query, key, value), out, statistics, grad)


def tokamax_forward(query: jax.Array, key: jax.Array, value: jax.Array) -> Pair:
    """The forward pass by tokamax; the backward pass runs it again."""
    b, n, h, _ = query.shape
    return _tokamax(query, key, value), jnp.zeros((b, h, n), jnp.float32)


def tokamax_backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    statistics: jax.Array,
    grad: jax.Array,
) -> Three:
    """The gradients by tokamax."""
    grad_query, grad_key, grad_value = jax.vjp(_tokamax, query, key, value)[1](grad)
    return grad_query, grad_key, grad_value


def _tokamax(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    # Imported here: it is optional, and slow to import.
    found: jax.Array = importlib.import_module("tokamax").dot_product_attention(
        query, key, value, scale=1.0
    )
    return found


def _padded_length(length: int) -> tuple[int, int]:
    """(length to pad to, length of a block), so that little is wasted on either.

    A block costs about as much as one of `_LANES` more.
    """
    blocks = range(_LANES, _MOST_BLOCK + 1, _LANES)
    fits = [(-(-length // block) * block, block) for block in blocks]
    return min(fits, key=lambda fit: fit[0] * (1 + _LANES / fit[1]))


@functools.cache
def _splash_kernel(n: int, m: int, heads: int, interpret: bool) -> Callable[..., jax.Array]:
    """The kernel of one example, [h, n, d], for padded lengths."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    (n, block_n), (m, block_m) = _padded_length(n), _padded_length(m)
    sizes = splash_attention_kernel.BlockSizes(
        block_q=block_n,
        block_kv=block_m,
        block_kv_compute=block_m,
        block_q_dkv=block_n,
        block_kv_dkv=block_m,
        block_kv_dkv_compute=block_m,
        block_q_dq=block_n,
        block_kv_dq=block_m,
    )
    mask = splash_attention_mask.FullMask((n, m))
    # Not within a trace, whose arrays must not be kept.
    with jax.ensure_compile_time_eval():
        made: Callable[..., jax.Array] = splash_attention_kernel.make_splash_mha(
            splash_attention_mask.MultiHeadMask([mask] * heads),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
    return made


def _splash(n: int, m: int, heads: int, interpret: bool) -> _Attend:
    """Attention of padded [b, h, n, d], [b, h, m, d]; keys beyond m are not looked at."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

    kernel = _splash_kernel(n, m, heads, interpret)
    padded_n, padded_m = _padded_length(n)[0], _padded_length(m)[0]
    segments = None
    if padded_m > m:
        segments = splash_attention_kernel.SegmentIds(
            q=jnp.zeros(padded_n, jnp.int32), kv=(jnp.arange(padded_m) >= m).astype(jnp.int32)
        )
    return jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=segments))


def _heads_first(x: jax.Array) -> jax.Array:
    """[b, n, h, d] to [b, h, padded n, d]."""
    missing = _padded_length(x.shape[1])[0] - x.shape[1]
    return jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))).swapaxes(1, 2)


def _tokens_first(x: jax.Array, length: int) -> jax.Array:
    return x[:, :, :length].swapaxes(1, 2)


def _splash_forward(query: jax.Array, key: jax.Array, value: jax.Array, *, interpret: bool) -> Pair:
    _, n, h, _ = query.shape
    attend = _splash(n, key.shape[1], h, interpret)
    out, statistics = _run(attend, *map(_heads_first, (query, key, value)))
    return _tokens_first(out, n), statistics[:, :, :n]


def _splash_backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    out: jax.Array,
    statistics: jax.Array,
    grad: jax.Array,
    *,
    interpret: bool,
) -> Three:
    _, n, h, _ = query.shape
    m = key.shape[1]
    query, key, value, out, grad = map(_heads_first, (query, key, value, out, grad))
    statistics = jnp.pad(statistics, ((0, 0), (0, 0), (0, query.shape[2] - n)))
    attend = _splash(n, m, h, interpret)
    found = _run_back(attend, (query, key, value), out, statistics, grad)
    grad_query, grad_key, grad_value = map(_tokens_first, found, (n, m, m))
    return grad_query, grad_key, grad_value


def _splash_can(query: jax.Array) -> bool:
    """Whether the batch is known and divides over the devices, and the type is one for a TPU."""
    return query.dtype.itemsize <= 4 and can_divide(query)


def splash(interpret: bool = False) -> Form:
    """Splash attention; where it cannot be had, the plain form.

    Args:
      interpret: run it without a TPU, slowly, for tests.
    """

    def forward(query: jax.Array, key: jax.Array, value: jax.Array) -> Pair:
        if not _splash_can(query):
            return PLAIN.forward(query, key, value)
        run = functools.partial(_splash_forward, interpret=interpret)
        out, statistics = on_each_device(run, query, key, value)
        return out, statistics

    def backward(query: jax.Array, *arrays: jax.Array) -> Three:
        if not _splash_can(query):
            return PLAIN.backward(query, *arrays)
        run = functools.partial(_splash_backward, interpret=interpret)
        grad_query, grad_key, grad_value = on_each_device(run, query, *arrays)
        return grad_query, grad_key, grad_value

    return Form(forward, backward)


CUDNN = Form(cudnn_forward, cudnn_backward)
SPLASH = splash()
TOKAMAX = Form(tokamax_forward, tokamax_backward)
