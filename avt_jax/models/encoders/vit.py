"""Vision Transformer (ViT) over video tubelets or over the patches of each frame.

Source: Dosovitskiy et al., arXiv:2010.11929; tubelets: Arnab et al., arXiv:2103.15691. It is the
tower that MBT has for each modality.
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
from avt_jax.models.layers import TransformerBlock, check_heads, linear
from avt_jax.models.layers.norms import LayerNorm
from avt_jax.models.layers.towers import remat_setting, run_tower, transformer_blocks
from avt_jax.settings import Block, setting

_POSITION_INIT = nnx.initializers.normal(stddev=0.02)


@dataclass(frozen=True)
class ViTConfig(Block, where="config.model.video_encoder"):
    """The config block of a ViT encoder. The defaults are ViT-Base."""

    dim: int = setting(768, "width", at_least=1)
    depth: int = setting(12, "transformer blocks", at_least=0)
    num_heads: int = setting(12, "attention heads; they divide dim", at_least=1)
    mlp_ratio: float = setting(4.0, "hidden width of an MLP over its width", above=0)
    patch_px: int = setting(16, "height and width of a patch", at_least=1)
    tubelet_frames: int = setting(
        2, "frames of a patch; 1 takes the patches of each frame by itself", at_least=1
    )
    drop_path: float = setting(
        0.0, "drop path rate of the last block; grows linearly from 0", at_least=0, below=1
    )
    remat: str = remat_setting()

    def check(self) -> None:
        """Refuses attention heads that do not divide the width."""
        check_heads(self)


_TINY = ViTConfig(dim=64, depth=2, num_heads=4, mlp_ratio=3.0, patch_px=8)
# The first is the default. The last two are not from a paper: one trains from scratch on a CPU in
# minutes, and the other has one block, to compile fast.
VARIANTS = {"base": ViTConfig(), "tiny": _TINY, "smoke": replace(_TINY, depth=1)}


class PatchTokens(nnx.Module):
    """Cuts an input into patches, projects them and adds learned positions, with a class token.

    Args:
      size: (frames, height, width) of the input.
      patch: (frames, height, width) of a patch; what does not fill a patch is left out.
      dim: width of a token.
      class_token: put a class token, with a position of its own, in front.
      dtype: computation type.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        size: tuple[int, int, int],
        patch: tuple[int, int, int],
        dim: int,
        *,
        class_token: bool = True,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.patch = patch
        frames, rows, columns = (n // p for n, p in zip(size, patch, strict=True))
        self.proj = linear(patch[0] * patch[1] * patch[2] * 3, dim, dtype=dtype, rngs=rngs)
        if class_token:
            self.cls_token = nnx.Param(jnp.zeros((1, 1, dim)))
        length = class_token + frames * rows * columns
        self.pos_embed = nnx.Param(_POSITION_INIT(rngs.params(), (1, length, dim)))

    def __call__(self, x_bthwc: jax.Array) -> jax.Array:
        """[b, t, h, w, 3] to [b, n, dim], row-major in (t, h, w), the class token first.

        Raises:
          ValueError: the input has another size than the model was built for.
        """
        b, t, h, w, c = x_bthwc.shape
        pt, ph, pw = self.patch
        nt, nh, nw = t // pt, h // ph, w // pw
        x = x_bthwc[:, : nt * pt, : nh * ph, : nw * pw].astype(self.proj.dtype)
        x = x.reshape(b, nt, pt, nh, ph, nw, pw, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
        x = self.proj(x.reshape(b, nt * nh * nw, pt * ph * pw * c))
        if hasattr(self, "cls_token"):
            cls = jnp.broadcast_to(self.cls_token[...].astype(x.dtype), (b, 1, x.shape[-1]))
            x = jnp.concatenate([cls, x], 1)
        if x.shape[1] != self.pos_embed.shape[1]:
            raise ValueError(
                f"an input of shape {x_bthwc.shape} makes {x.shape[1]} tokens, but the model has "
                f"positions for {self.pos_embed.shape[1]}; models.posemb adapts positions"
            )
        return x + self.pos_embed[...].astype(x.dtype)


def tower_blocks(
    config: ViTConfig, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.List[TransformerBlock]:
    """The transformer blocks of a ViT tower: tanh GELU, growing drop path.

    Args:
      config: sizes.
      dtype: computation type.
      rngs: for the initial weights.
    """
    return transformer_blocks(
        config.depth,
        config.dim,
        config.num_heads,
        mlp_ratio=config.mlp_ratio,
        drop_path=config.drop_path,
        tanh_gelu=True,
        dtype=dtype,
        rngs=rngs,
    )


class ViT(nnx.Module):
    """ViT over clips of one fixed size.

    Args:
      config: sizes and options.
      num_frames: frames of the input.
      frame_size_px: height and width of the input.
      num_classes: classes of the head; None leaves the head out (an encoder).
      dtype: computation type; parameters are float32.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        config: ViTConfig,
        *,
        num_frames: int,
        frame_size_px: int,
        num_classes: int | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.embed = PatchTokens(
            (num_frames, frame_size_px, frame_size_px),
            (config.tubelet_frames, config.patch_px, config.patch_px),
            config.dim,
            dtype=dtype,
            rngs=rngs,
        )
        self.blocks = tower_blocks(config, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(config.dim)
        if num_classes is not None:
            self.head = linear(config.dim, num_classes, dtype=dtype, rngs=rngs)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.dim

    def token_grid(self, video_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Patch tokens along (t, h, w) of a video [b, t, h, w, 3] of this shape."""
        frames, rows, columns = (
            n // p for n, p in zip(video_shape[1:4], self.embed.patch, strict=True)
        )
        return frames, rows, columns

    def all_tokens(
        self, video_bthwc: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, t, h, w, 3] normalised video to [b, 1 + n, d]: cls, patches, after the norm."""
        x = self.embed(video_bthwc)
        x = run_tower(self.blocks, x, train=train, rngs=rngs, remat=self.config.remat)
        return self.norm(x)

    def tokens(
        self, video_bthwc: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """The patches' tokens [b, n, d]; cls took part in attention and ends here."""
        return self.all_tokens(video_bthwc, train=train, rngs=rngs)[:, 1:]

    def features(
        self, video_bthwc: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, d]: the class token, what the head reads."""
        return self.all_tokens(video_bthwc, train=train, rngs=rngs)[:, 0]

    def __call__(
        self, video_bthwc: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, t, h, w, 3] normalised video to logits [b, y]; needs `num_classes`."""
        return self.head(self.features(video_bthwc, train=train, rngs=rngs))


def check_patches(model: str, config: ViTConfig, spec: InputSpec) -> None:
    """Refuses clips that are smaller than a patch.

    Args:
      model: name for the message.
      config: size of a patch.
      spec: size of the input.

    Raises:
      UserError: names the field and the least value.
    """
    least = {"num_frames": config.tubelet_frames, "frame_size_px": config.patch_px}
    for name, size in least.items():
        if getattr(spec, name) < size:
            raise UserError(
                f"config.data.{name} is {getattr(spec, name)}; {model} needs {size} or more for "
                "one patch."
            )


def build(config: ViTConfig, spec: InputSpec, *, dtype: DTypeLike, rngs: nnx.Rngs) -> ViT:
    """The encoder for inputs of one size.

    Raises:
      UserError: clips smaller than a patch.
    """
    check_patches("ViT", config, spec)
    sizes: dict[str, Any] = dict(num_frames=spec.num_frames, frame_size_px=spec.frame_size_px)
    return ViT(config, **sizes, dtype=dtype, rngs=rngs)
