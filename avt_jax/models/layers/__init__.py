"""Layers that several models share; each takes `train` and `rngs` when called, not before."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from avt_jax.errors import UserError
from avt_jax.models.kernels.attention import dot_product_attention
from avt_jax.models.kernels.choice import AUTO, Kernels, by_platform
from avt_jax.models.layers.norms import LayerNorm
from avt_jax.settings import Block
from avt_jax.tree.micro_batches import per_clip

# Types that a model may compute in.
PRECISIONS = ("float32", "bfloat16")

_TRUNCATED_NORMAL = nnx.initializers.truncated_normal(stddev=0.02)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds [c] to [..., c], in the type of `x`.

    The bias's gradient is summed up, over the devices too, in float32 at least, as those of the
    norms are: so they can cross the network together.
    """
    return x + bias.astype(x.dtype)


def _bias_backward(bias: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = grad.astype(jnp.promote_types(grad.dtype, jnp.float32))
    return grad, wide.sum(tuple(range(grad.ndim - 1))).astype(bias.dtype)


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), bias), _bias_backward)


@jax.custom_vjp
def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., d] times [d, e], in the type of `x`; the kernel's gradient as the bias's is summed."""
    return x @ kernel.astype(x.dtype)


def _dense_backward(
    saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    grad_kernel = by_platform(_KERNEL_GRADIENT, _KERNEL_GRADIENTS, x, grad)
    return grad @ kernel.astype(grad.dtype).T, grad_kernel.astype(kernel.dtype)


dense.defvjp(lambda x, kernel: (dense(x, kernel), (x, kernel)), _dense_backward)


def _over_rows(x: jax.Array, grad: jax.Array) -> jax.Array:
    return _over_axes(x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1]))


def _over_axes(x: jax.Array, grad: jax.Array) -> jax.Array:
    axes = tuple(range(x.ndim - 1))
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.tensordot(x, grad, (axes, axes), preferred_element_type=wide)


# With one axis to sum over, XLA makes the gradient up to twice as fast on a CPU: with more it first
# makes a transposed copy of what comes from above, and computes again what that is made of. On a
# TPU, whose memory is in tiles of 8 rows, making one axis of two is a copy of its own.
_KERNEL_GRADIENTS = {"rows": _over_rows, "axes": _over_axes}
_KERNEL_GRADIENT = (("cpu", "rows"), ("gpu", "axes"), ("tpu", "axes"))


class _Linear(nnx.Linear):
    """A dense layer whose gradients have the form of their platform."""

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        out = dense(inputs.astype(self.dtype), self.kernel[...])
        return out if self.bias is None else add_bias(out, self.bias[...])


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


# A drop path rate; an array where layers that run in a loop have different ones.
Rate = float | jax.Array


def drop_path(x: jax.Array, rate: Rate, *, train: bool, rngs: nnx.Rngs | None) -> jax.Array:
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
    if not train or (not isinstance(rate, jax.Array) and rate == 0):
        return x
    if rngs is None:
        raise ValueError('drop path in training needs rngs with a stream "dropout"')
    draw = functools.partial(jax.random.bernoulli, rngs.dropout(), 1 - rate)
    keep_b = per_clip(lambda length: draw((length,)), x.shape[0])
    keep = keep_b.reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), 0)


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


@jax.custom_vjp
def tanh_gelu(x: jax.Array) -> jax.Array:
    """GELU by its tanh approximation; the backward pass keeps nothing but `x`."""
    return jax.nn.gelu(x, approximate=True)


def _tanh_gelu_backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    _, pull = jax.vjp(lambda x: jax.nn.gelu(x, approximate=True), x)
    return pull(grad)


tanh_gelu.defvjp(lambda x: (tanh_gelu(x), x), _tanh_gelu_backward)


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
        return self.fc2(tanh_gelu(x) if self.tanh_gelu else exact_gelu(x))


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
        heads = (self.num_heads, d // self.num_heads)
        # Cut before the heads are told apart: a TPU would lay out the whole anew for five axes.
        query, key, value = (x.reshape(b, n, *heads) for x in jnp.split(self.qkv(x_bnd), 3, -1))
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
        key_value = jnp.split(self.kv(other_bmd), 2, -1)
        key, value = (x.reshape(b, other_bmd.shape[1], *heads) for x in key_value)
        attended = dot_product_attention(query, key, value, kernels=self.kernels)
        return self.proj(attended.reshape(b, n, d))


def recomputed(
    branch: Callable[[jax.Array], jax.Array], remat: str
) -> Callable[[jax.Array], jax.Array]:
    """A block's branch with attention, of which `remat` "attention" keeps only the input."""
    return jax.checkpoint(branch) if remat == "attention" else branch


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
        self,
        x_bnd: jax.Array,
        /,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        rate: Rate | None = None,
        remat: str = "none",
    ) -> jax.Array:
        """[b, n, d] to the same.

        Args:
          x_bnd: tokens.
          train: use drop path.
          rngs: stream "dropout".
          rate: in place of the block's own drop path rate.
          remat: "attention" keeps nothing of that branch for the backward pass.
        """
        drop = self.drop_options(rate, train, rngs)
        attend = recomputed(lambda x: self.attn(self.norm1(x)), remat)
        x_bnd = x_bnd + drop_path(attend(x_bnd), **drop)
        return x_bnd + drop_path(self.mlp(self.norm2(x_bnd)), **drop)

    def drop_options(self, rate: Rate | None, train: bool, rngs: nnx.Rngs | None) -> dict[str, Any]:
        """What `drop_path` gets besides the branch."""
        return dict(rate=self.drop_path if rate is None else rate, train=train, rngs=rngs)


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
