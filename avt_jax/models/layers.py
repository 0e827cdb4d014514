"""Layers that several models share; each takes `train` and `rngs` when called, not before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from avt_jax.errors import UserError
from avt_jax.models.kernels.attention import dot_product_attention
from avt_jax.models.kernels.choice import AUTO, Kernels
from avt_jax.settings import Block

# Types that a model may compute in.
PRECISIONS = ("float32", "bfloat16")

_TRUNCATED_NORMAL = nnx.initializers.truncated_normal(stddev=0.02)


class _Linear(nnx.Linear):
    """A dense layer over rows: on a CPU, the gradient of the weights is up to twice as fast.

    With one axis to sum over, XLA makes that gradient where it belongs; with more it first makes
    a transposed copy of what comes from above, and computes again what that is made of.
    """

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        rows = super().__call__(inputs.reshape(-1, inputs.shape[-1]), out_sharding)
        return rows.reshape(*inputs.shape[:-1], rows.shape[-1])


def linear(
    in_features: int,
    out_features: int,
    *,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
    use_bias: bool = True,
    kernel_init: nnx.Initializer = _TRUNCATED_NORMAL,
) -> nnx.Linear:
    """A dense layer with float32 parameters that computes in `dtype`; weights start N(0, 0.02)."""
    return _Linear(
        in_features,
        out_features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        rngs=rngs,
    )


def drop_path(x: jax.Array, rate: float, *, train: bool, rngs: nnx.Rngs | None) -> jax.Array:
    """Drops a residual branch for whole examples (stochastic depth).

    Args:
      x: [b, ...] the branch.
      rate: probability of dropping, in [0, 1).
      train: False returns `x` as it is.
      rngs: stream "dropout"; needed when `train` and rate > 0.

    Returns:
      `x` with dropped examples at 0 and the others scaled by 1 / (1 - rate).

    Raises:
      ValueError: it needs `rngs` and there are none.
    """
    if not train or rate == 0:
        return x
    if rngs is None:
        raise ValueError('drop path in training needs rngs with a stream "dropout"')
    keep_b = jax.random.bernoulli(rngs.dropout(), 1 - rate, (x.shape[0],))
    keep = keep_b.reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1 - rate), 0)


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
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = wide.mean(-1, keepdims=True)
        variance = jnp.square(wide - mean).mean(-1, keepdims=True)
        normal = (wide - mean) * jax.lax.rsqrt(variance + self.eps)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, with the original's running statistics.

    In training the statistics are of the whole batch; under `jit` on a mesh that is the global
    batch of all devices. The running variance is the unbiased one, as in PyTorch; Flax's own layer
    keeps the biased one.

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
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if train and not self.frozen:
            mean, var = self._batch_statistics(wide)
        else:
            mean, var = self.mean[...], self.var[...]
        factor = self.scale[...] * jax.lax.rsqrt(var + self.eps)
        return (wide * factor + (self.bias[...] - mean * factor)).astype(x.dtype)

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        others = tuple(range(x.ndim - 1))
        mean = x.mean(others)
        var = jnp.square(x - mean).mean(others)
        count = x.size // x.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            new = jax.lax.stop_gradient(new)
            running[...] = (1 - self.momentum) * running[...] + self.momentum * new
        return mean, var


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


@jax.custom_vjp
def exact_gelu(x: jax.Array) -> jax.Array:
    """GELU by the error function, in float32 at least; the backward pass keeps nothing but `x`.

    `jax.nn.gelu` takes 1 - erf as a function of its own, which costs three times as much.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * _normal_cdf(wide)).astype(x.dtype)


def _gelu_backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    density = jnp.exp(-0.5 * jnp.square(wide)) / math.sqrt(2 * math.pi)
    return ((grad * (_normal_cdf(wide) + wide * density)).astype(x.dtype),)


exact_gelu.defvjp(lambda x: (exact_gelu(x), x), _gelu_backward)


class Mlp(nnx.Module):
    """Two dense layers with a GELU between them.

    Args:
      dim: width.
      hidden: width between the layers.
      tanh_gelu: the tanh approximation (ViT, MBT) instead of the exact GELU (UniFormer, AST).
      dtype: computation type.
      rngs: for the initial weights.
      kernel_init: of both layers.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        tanh_gelu: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        kernel_init: nnx.Initializer = _TRUNCATED_NORMAL,
    ):
        shared: dict[str, Any] = dict(dtype=dtype, kernel_init=kernel_init, rngs=rngs)
        self.fc1 = linear(dim, hidden, **shared)
        self.fc2 = linear(hidden, dim, **shared)
        self.tanh_gelu = tanh_gelu

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.fc1(x)
        return self.fc2(jax.nn.gelu(x, approximate=True) if self.tanh_gelu else exact_gelu(x))


class Attention(nnx.Module):
    """Multi-head self-attention; one dense layer makes queries, keys and values.

    Args:
      dim: width.
      num_heads: heads; they divide `dim`.
      qkv_bias: give that layer a bias.
      dtype: computation type; the softmax is in float32 at least.
      rngs: for the initial weights.
    """

    # Which forms compute it; `build.build_model` sets it in a finished model.
    kernels: str | Kernels = AUTO

    def __init__(
        self, dim: int, num_heads: int, *, qkv_bias: bool = True, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.qkv = linear(dim, 3 * dim, use_bias=qkv_bias, dtype=dtype, rngs=rngs)
        self.proj = linear(dim, dim, dtype=dtype, rngs=rngs)
        self.num_heads = num_heads

    def __call__(self, x_bnd: jax.Array) -> jax.Array:
        b, n, d = x_bnd.shape
        qkv = self.qkv(x_bnd).reshape(b, n, 3, self.num_heads, d // self.num_heads)
        query, key, value = (qkv[:, :, i] for i in range(3))
        attended = dot_product_attention(query, key, value, kernels=self.kernels)
        return self.proj(attended.reshape(b, n, d))


class CrossAttention(nnx.Module):
    """Multi-head attention of tokens to those of another sequence of the same width.

    Args:
      dim: width.
      num_heads: heads; they divide `dim`.
      dtype: computation type; the softmax is in float32 at least.
      rngs: for the initial weights.
    """

    # Which forms compute it; `build.build_model` sets it in a finished model.
    kernels: str | Kernels = AUTO

    def __init__(self, dim: int, num_heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.q = linear(dim, dim, dtype=dtype, rngs=rngs)
        self.kv = linear(dim, 2 * dim, dtype=dtype, rngs=rngs)
        self.proj = linear(dim, dim, dtype=dtype, rngs=rngs)
        self.num_heads = num_heads

    def __call__(self, x_bnd: jax.Array, other_bmd: jax.Array) -> jax.Array:
        """[b, n, d] queries from `x_bnd`, keys and values from `other_bmd` [b, m, d]: [b, n, d]."""
        b, n, d = x_bnd.shape
        heads = (self.num_heads, d // self.num_heads)
        query = self.q(x_bnd).reshape(b, n, *heads)
        key_value = self.kv(other_bmd).reshape(b, other_bmd.shape[1], 2, *heads)
        key, value = key_value[:, :, 0], key_value[:, :, 1]
        attended = dot_product_attention(query, key, value, kernels=self.kernels)
        return self.proj(attended.reshape(b, n, d))


class TransformerBlock(nnx.Module):
    """Pre-norm transformer block: attention, then MLP, each on a residual branch.

    Args:
      dim: width.
      num_heads: attention heads.
      mlp_ratio: hidden width of the MLP over `dim`.
      qkv_bias: bias for queries, keys and values.
      drop_path: probability of dropping each branch in training.
      tanh_gelu: see `Mlp`.
      norm_eps: added to the variance in both norms.
      dtype: computation type.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        tanh_gelu: bool = False,
        norm_eps: float = 1e-6,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.norm1 = LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), tanh_gelu=tanh_gelu, dtype=dtype, rngs=rngs)
        self.drop_path = drop_path

    def __call__(
        self, x_bnd: jax.Array, /, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        drop: dict[str, Any] = dict(rate=self.drop_path, train=train, rngs=rngs)
        x_bnd = x_bnd + drop_path(self.attn(self.norm1(x_bnd)), **drop)
        return x_bnd + drop_path(self.mlp(self.norm2(x_bnd)), **drop)


def _call(
    block: Callable[..., jax.Array], x: jax.Array, train: bool, rngs: nnx.Rngs | None
) -> jax.Array:
    return block(x, train=train, rngs=rngs)


def block_runner(remat: bool) -> Callable[..., jax.Array]:
    """How a tower of blocks calls each of them: (block, x, train, rngs) -> x.

    Args:
      remat: recompute the block in the backward pass instead of storing its activations.
    """
    return nnx.remat(_call, static_argnums=(2,)) if remat else _call


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates that grow linearly from 0 to `rate` over `depth` blocks."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def transformer_blocks(
    depth: int,
    dim: int,
    num_heads: int,
    *,
    drop_path: float = 0.0,
    block: type[TransformerBlock] = TransformerBlock,
    **options: Any,
) -> nnx.List[TransformerBlock]:
    """Transformer blocks with a growing drop path.

    Args:
      depth: how many.
      dim: width.
      num_heads: attention heads.
      drop_path: rate of the last block.
      block: their class.
      options: see `TransformerBlock`.
    """
    return nnx.List(
        [
            block(dim, num_heads, drop_path=rate, **options)
            for rate in drop_path_rates(drop_path, depth)
        ]
    )


def check_heads(config: Block, heads: str = "num_heads", width: str = "dim") -> None:
    """Refuses attention heads that cannot share a width evenly.

    Args:
      config: has both fields.
      heads: name of the field with the number of heads.
      width: name of the field with the width.

    Raises:
      UserError: names both values.
    """
    values = config.to_dict()
    if values[width] % values[heads]:
        raise UserError(
            f"{config.where}.{heads} {values[heads]} does not divide {width} {values[width]}; "
            "give a divisor of it."
        )
