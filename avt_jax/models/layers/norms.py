"""Normalisation layers whose backward pass keeps the input in its own type, not in float32."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, computed in float32 at least.

    Args:
      dim: size of the last axis.
      eps: added to the variance.
    """

    def __init__(self, dim: int, *, eps: float = 1e-6):
        self.scale = nnx.Param(jnp.ones(dim))
        self.bias = nnx.Param(jnp.zeros(dim))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        return _layer_norm(x, self.scale[...], self.bias[...], self.eps)


# Input, scale, mean and inverse deviation of each row.
_Rows = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    return _layer_norm_forward(x, scale, bias, eps)[0]


def _layer_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[jax.Array, _Rows]:
    wide = _wide(x)
    mean = wide.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(wide - mean).mean(-1, keepdims=True) + eps)
    normal = (wide - mean) * inverse
    return (normal * scale + bias).astype(x.dtype), (x, scale, mean, inverse)


def _layer_norm_backward(
    eps: float, saved: _Rows, grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del eps
    x, scale, mean, inverse = saved
    normal, grad = (_wide(x) - mean) * inverse, _wide(grad)
    inner = grad * scale
    to_x = inner - inner.mean(-1, keepdims=True)
    to_x = inverse * (to_x - normal * (inner * normal).mean(-1, keepdims=True))
    rows = tuple(range(x.ndim - 1))
    to_scale, to_bias = (grad * normal).sum(rows), grad.sum(rows)
    return to_x.astype(x.dtype), to_scale.astype(scale.dtype), to_bias.astype(scale.dtype)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, with the original's running statistics.

    In training the statistics are of the whole batch; under `jit` on a mesh that is the global
    batch of all devices, at the price of one small collective forward and one backward. The running
    variance is the unbiased one, as in PyTorch; Flax's own layer keeps the biased one.

    Args:
      dim: size of the last axis.
      eps: added to the variance.
      momentum: weight of the new batch in the running statistics.
      frozen: use the running statistics in training too and leave them as they are.
    """

    def __init__(self, dim: int, *, eps: float = 1e-5, momentum: float = 0.1, frozen: bool = False):
        self.scale = nnx.Param(jnp.ones(dim))
        self.bias = nnx.Param(jnp.zeros(dim))
        self.mean = nnx.BatchStat(jnp.zeros(dim))
        self.var = nnx.BatchStat(jnp.ones(dim))
        self.eps, self.momentum, self.frozen = eps, momentum, frozen

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        scale, bias = self.scale[...], self.bias[...]
        if train and not self.frozen:
            out, mean, var = _batch_norm(x, scale, bias, self.eps)
            self._keep(mean, var, x.size // x.shape[-1])
            return out
        return _scaled(x, scale, bias, self.mean[...], jax.lax.rsqrt(self.var[...] + self.eps))

    def _keep(self, mean: jax.Array, var: jax.Array, count: int) -> None:
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            new = jax.lax.stop_gradient(new)
            running[...] = (1 - self.momentum) * running[...] + self.momentum * new


def _scaled(
    x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, inverse: jax.Array
) -> jax.Array:
    factor = scale * inverse
    return (_wide(x) * factor + (bias - mean * factor)).astype(x.dtype)


def _statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(mean, variance) over all axes but the last.

    Each clip's first; of those every device gets all, in one collective, and what follows is small.
    Mean and variance of the batch at once would be two, one after the other, and in one pass as
    E[x^2] - E[x]^2 they would cancel digits.
    """
    positions = tuple(range(1, x.ndim - 1))
    mean_bc = x.mean(positions)
    around = jnp.square(x - jnp.expand_dims(mean_bc, positions)).mean(positions)
    mean_bc, around_bc = jnp.moveaxis(_on_every_device(jnp.stack([mean_bc, around], 1)), 1, 0)
    mean = mean_bc.mean(0)
    return mean, (around_bc + jnp.square(mean_bc - mean)).mean(0)


def _on_every_device(x: jax.Array) -> jax.Array:
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec())


def _sum_both(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both summed over all axes but the last, with one reduction across devices for the two."""
    positions = tuple(range(1, first.ndim - 1))
    both = jnp.stack([first.sum(positions), second.sum(positions)], 1).sum(0)
    return both[0], both[1]


# Input, scale, mean and inverse deviation of each channel.
_Channels = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
_Normal = tuple[jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> _Normal:
    """(output, mean, variance); only the output has a gradient."""
    return _batch_norm_forward(x, scale, bias, eps)[0]


def _batch_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[_Normal, _Channels]:
    mean, var = _statistics(_wide(x))
    inverse = jax.lax.rsqrt(var + eps)
    return (_scaled(x, scale, bias, mean, inverse), mean, var), (x, scale, mean, inverse)


def _batch_norm_backward(
    eps: float, saved: _Channels, grads: _Normal
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del eps
    x, scale, mean, inverse = saved
    normal, grad = (_wide(x) - mean) * inverse, _wide(grads[0])
    count = x.size // x.shape[-1]
    to_bias, to_scale = _sum_both(grad, grad * normal)
    to_x = scale * inverse * (grad - to_bias / count - normal * (to_scale / count))
    return to_x.astype(x.dtype), to_scale.astype(scale.dtype), to_bias.astype(scale.dtype)


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)
