"""UniFormer video encoder: local convolutional blocks, then global attention blocks.

Source: Li et al., arXiv:2201.04676. Module names follow the authors' state dict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from avt_jax.errors import UserError
from avt_jax.models.inputs import InputSpec
from avt_jax.models.kernels.choice import AUTO, Kernels
from avt_jax.models.kernels.depthwise_conv import depthwise_conv3d
from avt_jax.models.layers import (
    Attention,
    Mlp,
    Rate,
    TransformerBlock,
    add_bias,
    drop_path,
    linear,
    recomputed,
)
from avt_jax.models.layers.norms import BatchNorm, LayerNorm
from avt_jax.models.layers.towers import drop_path_rates, remat_setting, run_tower
from avt_jax.settings import Block, setting

# Convolutions start as PyTorch's do: uniform within 1 / sqrt(fan in).
_CONV_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclass(frozen=True)
class UniFormerConfig(Block, where="config.model.video_encoder"):
    """The config block of a UniFormer encoder. The defaults are UniFormer-S."""

    depth: tuple[int, int, int, int] = setting(
        (3, 4, 8, 3), "blocks in each of the four stages", at_least=1
    )
    dim: tuple[int, int, int, int] = setting((64, 128, 320, 512), "width of each stage", at_least=1)
    head_dim: int = setting(64, "width of an attention head in stages 3 and 4", at_least=1)
    mlp_ratio: float = setting(4.0, "hidden width of an MLP over its width", above=0)
    qkv_bias: bool = setting(True, "bias for queries, keys and values")
    split: bool = setting(False, "attend over time and over space separately")
    std: bool = setting(
        False, "patch embeddings of stages 2 to 4 look at three frames each instead of one"
    )
    drop_path: float = setting(
        0.0, "drop path rate of the last block; grows linearly from 0", at_least=0, below=1
    )
    freeze_bn: bool = setting(
        False, "keep BatchNorm's running statistics as they are (small batches)"
    )
    remat: str = remat_setting()

    def check(self) -> None:
        """Refuses attention heads that do not fill the width."""
        for dim in self.dim[2:]:
            if self.head_dim > dim or dim % (dim // self.head_dim):
                raise UserError(
                    f"{self.where}.head_dim {self.head_dim} does not divide the width {dim}; "
                    "give a divisor of the last two numbers of dim."
                )


_TINY = UniFormerConfig(depth=(1, 1, 2, 1), dim=(16, 32, 64, 64), head_dim=16, mlp_ratio=3.0)
# The first is the default. The last two are not from the paper: one trains from scratch on a CPU
# in minutes, and the other has one block of each kind, to compile fast.
VARIANTS = {
    "S": UniFormerConfig(),
    "B": UniFormerConfig(depth=(5, 8, 20, 7)),
    "tiny": _TINY,
    "smoke": replace(_TINY, depth=(1, 1, 1, 1)),
}


class PatchEmbed(nnx.Module):
    """Convolution with equal spatial kernel and stride, then LayerNorm over channels.

    Args:
      in_channels: channels before.
      dim: channels after.
      kernel: (time, space) kernel size.
      stride: in time; in space it equals the kernel.
      dtype: computation type.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        *,
        kernel: tuple[int, int],
        stride: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.time_kernel, self.patch = kernel
        self.time_stride = stride
        self.proj = linear(
            self.time_kernel * self.patch**2 * in_channels,
            dim,
            dtype=dtype,
            rngs=rngs,
            kernel_init=_CONV_INIT,
        )
        self.norm = LayerNorm(dim, eps=1e-5)

    def __call__(self, x_bthwc: jax.Array) -> jax.Array:
        b, t, h, w, c = x_bthwc.shape
        p, kt = self.patch, self.time_kernel
        # Patches do not overlap in space, so the convolution is one matrix product over
        # [time tap, row, column, channel]; in time the taps are strided slices.
        x = x_bthwc[:, :, : h // p * p, : w // p * p]
        x = x.reshape(b, t, h // p, p, w // p, p, c).transpose(0, 1, 2, 4, 3, 5, 6)
        x = x.reshape(b, t, h // p, w // p, p * p * c)
        x = jnp.pad(x, ((0, 0), (kt // 2, kt // 2), (0, 0), (0, 0), (0, 0)))
        out_t = (t + 2 * (kt // 2) - kt) // self.time_stride + 1
        end = (out_t - 1) * self.time_stride + 1
        taps = [x[:, i : i + end : self.time_stride] for i in range(kt)]
        return self.norm(self.proj(jnp.concatenate(taps, -1)))


class DepthwiseConv(nnx.Module):
    """Depthwise 3-D convolution with bias, same size out."""

    # Which forms compute it; `build.build_model` sets it in a finished model.
    kernels: str | Kernels = AUTO

    def __init__(self, dim: int, size: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=(0, 1, 2))
        self.kernel = nnx.Param(init(rngs.params(), (size, size, size, 1, dim))[:, :, :, 0])
        self.bias = nnx.Param(jnp.zeros(dim))

    def __call__(self, x_bthwc: jax.Array) -> jax.Array:
        out = depthwise_conv3d(x_bthwc, self.kernel[...], kernels=self.kernels)
        return add_bias(out, self.bias[...])


class CBlock(nnx.Module):
    """Local block: 5x5x5 depthwise convolution in the place of attention, BatchNorm, MLP."""

    def __init__(
        self,
        dim: int,
        config: UniFormerConfig,
        *,
        drop_path: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        norm: dict[str, Any] = dict(frozen=config.freeze_bn)
        conv: dict[str, Any] = dict(kernel_init=_CONV_INIT, dtype=dtype, rngs=rngs)
        self.pos_embed = DepthwiseConv(dim, 3, rngs=rngs)
        self.norm1 = BatchNorm(dim, **norm)
        self.conv1 = linear(dim, dim, **conv)
        self.attn = DepthwiseConv(dim, 5, rngs=rngs)
        self.conv2 = linear(dim, dim, **conv)
        self.norm2 = BatchNorm(dim, **norm)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), **conv)
        self.drop_path = drop_path

    def __call__(
        self,
        x_bthwc: jax.Array,
        *,
        train: bool,
        rngs: nnx.Rngs | None,
        rate: Rate | None = None,
        remat: str = "none",
    ) -> jax.Array:
        """[b, t, h, w, d] to the same; arguments as those of `TransformerBlock`."""
        drop: dict[str, Any] = dict(
            rate=self.drop_path if rate is None else rate, train=train, rngs=rngs
        )
        x = x_bthwc + self.pos_embed(x_bthwc)
        mix = recomputed(lambda x: self.conv2(self.attn(self.conv1(x))), remat)
        x = x + drop_path(mix(self.norm1(x, train=train)), **drop)
        return x + drop_path(self.mlp(self.norm2(x, train=train)), **drop)


class SABlock(TransformerBlock):
    """Global block: a transformer block over all positions of all frames."""

    def __init__(
        self,
        dim: int,
        config: UniFormerConfig,
        *,
        drop_path: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            dim,
            dim // config.head_dim,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=config.qkv_bias,
            drop_path=drop_path,
            dtype=dtype,
            rngs=rngs,
        )
        self.pos_embed = DepthwiseConv(dim, 3, rngs=rngs)

    def __call__(
        self,
        x_bthwc: jax.Array,
        /,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        rate: Rate | None = None,
        remat: str = "none",
    ) -> jax.Array:
        """[b, t, h, w, d] to the same; arguments as those of `TransformerBlock`."""
        x = x_bthwc + self.pos_embed(x_bthwc)
        b, t, h, w, d = x.shape
        tokens = x.reshape(b, t * h * w, d)
        options: dict[str, Any] = dict(train=train, rngs=rngs, rate=rate, remat=remat)
        return super().__call__(tokens, **options).reshape(x.shape)


class SplitSABlock(SABlock):
    """Global block that attends over time at each position, then over space in each frame."""

    def __init__(
        self,
        dim: int,
        config: UniFormerConfig,
        *,
        drop_path: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, config, drop_path=drop_path, dtype=dtype, rngs=rngs)
        self.t_norm = LayerNorm(dim)
        self.t_attn = Attention(
            dim, dim // config.head_dim, qkv_bias=config.qkv_bias, dtype=dtype, rngs=rngs
        )
        # Over time, attention starts as nothing, but with a gradient, as in the original.
        qkv, proj = self.t_attn.qkv.kernel, self.t_attn.proj.kernel
        qkv.set_value(jnp.zeros_like(qkv[...]))
        proj.set_value(jnp.ones_like(proj[...]))

    def __call__(
        self,
        x_bthwc: jax.Array,
        /,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        rate: Rate | None = None,
        remat: str = "none",
    ) -> jax.Array:
        """[b, t, h, w, d] to the same; arguments as those of `TransformerBlock`."""
        x = x_bthwc + self.pos_embed(x_bthwc)
        b, t, h, w, d = x.shape

        # As in the original, drop path draws for each row that a branch sees: a position of the
        # frame over time, a frame over space, and the whole clip in the MLP.
        drop = self.drop_options(rate, train, rngs)
        over_time = x.reshape(b, t, h * w, d).swapaxes(1, 2).reshape(b * h * w, t, d)
        in_time = recomputed(lambda x: self.t_attn(self.t_norm(x)), remat)
        over_time += drop_path(in_time(over_time), **drop)
        in_space = over_time.reshape(b, h * w, t, d).swapaxes(1, 2).reshape(b * t, h * w, d)
        # The residual is from before the attention over time.
        attend = recomputed(lambda x: self.attn(self.norm1(x)), remat)
        out = x.reshape(b * t, h * w, d) + drop_path(attend(in_space), **drop)
        out = out.reshape(b, t * h * w, d)
        out += drop_path(self.mlp(self.norm2(out)), **drop)
        return out.reshape(x.shape)


class UniFormer(nnx.Module):
    """UniFormer over a clip.

    Args:
      config: sizes and options.
      num_classes: classes of the head; None leaves the head out (an encoder).
      dtype: computation type; parameters are float32.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        config: UniFormerConfig,
        *,
        num_classes: int | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype = config, dtype
        rates = iter(drop_path_rates(config.drop_path, sum(config.depth)))
        attention = SplitSABlock if config.split else SABlock
        later: dict[str, Any] = dict(kernel=(3 if config.std else 1, 2), stride=1)
        for stage, (depth, dim) in enumerate(zip(config.depth, config.dim, strict=True)):
            embed = PatchEmbed(
                3 if stage == 0 else config.dim[stage - 1],
                dim,
                dtype=dtype,
                rngs=rngs,
                **(dict(kernel=(3, 4), stride=2) if stage == 0 else later),
            )
            block = CBlock if stage < 2 else attention
            blocks = nnx.List(
                [
                    block(dim, config, drop_path=next(rates), dtype=dtype, rngs=rngs)
                    for _ in range(depth)
                ]
            )
            setattr(self, f"patch_embed{stage + 1}", embed)
            setattr(self, f"blocks{stage + 1}", blocks)
        self.norm = BatchNorm(config.dim[-1], frozen=config.freeze_bn)
        if num_classes is not None:
            self.head = linear(config.dim[-1], num_classes, dtype=dtype, rngs=rngs)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.dim[-1]

    def token_grid(self, video_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Tokens along (t, h, w) of a video [b, t, h, w, 3] of this shape."""
        _, t, h, w, _ = video_shape
        return (t - 1) // 2 + 1, h // 4 // 8, w // 4 // 8

    def stages(
        self, video_bthwc: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> list[jax.Array]:
        """Activations after each of the four stages, [b, t, h, w, dim], before the final norm."""
        options: dict[str, Any] = dict(train=train, rngs=rngs, remat=self.config.remat)
        x, found = video_bthwc.astype(self.dtype), []
        for stage in range(1, 5):
            x = getattr(self, f"patch_embed{stage}")(x)
            x = run_tower(getattr(self, f"blocks{stage}"), x, **options)
            found.append(x)
        return found

    def features(
        self, video_bthwc: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, t, h, w, 3] normalised video to [b, t/2, h/32, w/32, width] after the final norm."""
        return self.norm(self.stages(video_bthwc, train=train, rngs=rngs)[-1], train=train)

    def tokens(
        self, video_bthwc: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """The features as video tokens [b, n, width], row-major in (t, h, w)."""
        features = self.features(video_bthwc, train=train, rngs=rngs)
        return features.reshape(features.shape[0], -1, self.width)

    def __call__(
        self, video_bthwc: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, t, h, w, 3] normalised video to logits [b, y]; needs `num_classes`."""
        features = self.features(video_bthwc, train=train, rngs=rngs)
        return self.head(features.mean((1, 2, 3)))


def build(
    config: UniFormerConfig, spec: InputSpec, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> UniFormer:
    """The encoder for inputs of one size.

    Raises:
      UserError: frames too small for its five halvings.
    """
    if spec.frame_size_px < 32:
        raise UserError(
            f"config.data.frame_size_px is {spec.frame_size_px}; UniFormer needs 32 or more."
        )
    return UniFormer(config, dtype=dtype, rngs=rngs)
