"""Audio Spectrogram Transformer (AST): a distilled DeiT over spectrogram patches.

Source: Gong et al., arXiv:2104.01778. Module names follow the authors' state dict.
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
from avt_jax.models.layers import add_bias, check_heads, dense, linear
from avt_jax.models.layers.norms import LayerNorm
from avt_jax.models.layers.towers import remat_setting, run_tower, transformer_blocks
from avt_jax.models.patches import spectrogram_patches
from avt_jax.settings import Block, setting

PATCH = 16
_TOKEN_INIT = nnx.initializers.truncated_normal(stddev=0.02)


@dataclass(frozen=True)
class ASTConfig(Block, where="config.model.audio_encoder"):
    """The config block of an AST encoder. The defaults are AST-Base."""

    dim: int = setting(768, "width", at_least=1)
    depth: int = setting(12, "transformer blocks", at_least=0)
    num_heads: int = setting(12, "attention heads; they divide dim", at_least=1)
    mlp_ratio: float = setting(4.0, "hidden width of an MLP over its width", above=0)
    stride: int | tuple[int, int] = setting(
        16,
        "step of the 16 x 16 patches: 16, or 10 (overlapping); a pair is (frequency, time)",
        at_least=1,
        at_most=PATCH,
    )
    qkv_bias: bool = setting(True, "bias for queries, keys and values")
    norm_eps: float = setting(
        1e-6,
        "added to the variance in the norms of the encoder; Hugging Face's default is 1e-12",
        at_least=0,
    )
    drop_path: float = setting(
        0.0, "drop path rate of the last block; grows linearly from 0", at_least=0, below=1
    )
    remat: str = remat_setting()

    def check(self) -> None:
        """Refuses attention heads that do not divide the width."""
        check_heads(self)

    @property
    def strides(self) -> tuple[int, int]:
        """(frequency, time) step of the patches."""
        return (self.stride, self.stride) if isinstance(self.stride, int) else self.stride


_TINY = ASTConfig(dim=64, depth=2, num_heads=4, mlp_ratio=3.0)
# The first is the default. The last two are not from the paper: one trains from scratch on a CPU
# in minutes, and the other has one block, to compile fast.
VARIANTS = {"base": ASTConfig(), "tiny": _TINY, "smoke": replace(_TINY, depth=1)}


def patch_grid(num_frames: int, mel_bins: int, config: ASTConfig) -> tuple[int, int]:
    """Number of patches along (frequency, time)."""
    frequency, time = config.strides
    return (mel_bins - PATCH) // frequency + 1, (num_frames - PATCH) // time + 1


class AST(nnx.Module):
    """AST over a log-mel spectrogram of one fixed size.

    Args:
      config: sizes and options.
      num_frames: spectrogram frames of the input.
      mel_bins: mel bins of the input.
      num_classes: classes of the head; None leaves the head out (an encoder).
      dtype: computation type; parameters are float32.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        config: ASTConfig,
        *,
        num_frames: int,
        mel_bins: int = 128,
        num_classes: int | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype = config, dtype
        rows, columns = patch_grid(num_frames, mel_bins, config)
        dim = config.dim
        self.patch_embed = nnx.Conv(
            1,
            dim,
            kernel_size=(PATCH, PATCH),
            strides=config.strides,
            padding="VALID",
            dtype=dtype,
            rngs=rngs,
        )
        self.cls_token = nnx.Param(_TOKEN_INIT(rngs.params(), (1, 1, dim)))
        self.dist_token = nnx.Param(_TOKEN_INIT(rngs.params(), (1, 1, dim)))
        self.pos_embed = nnx.Param(_TOKEN_INIT(rngs.params(), (1, 2 + rows * columns, dim)))
        self.blocks = transformer_blocks(
            config.depth,
            dim,
            config.num_heads,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=config.qkv_bias,
            norm_eps=config.norm_eps,
            drop_path=config.drop_path,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(dim, eps=config.norm_eps)
        if num_classes is not None:
            self.head_norm = LayerNorm(dim, eps=1e-5)
            self.head = linear(dim, num_classes, dtype=dtype, rngs=rngs)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.dim

    def token_grid(self, fbank_shape: tuple[int, ...]) -> tuple[int, int]:
        """Patches along (frequency, time) of a spectrogram [b, s, f] of this shape."""
        return patch_grid(fbank_shape[1], fbank_shape[2], self.config)

    def patches(self, fbank_bsf: jax.Array) -> jax.Array:
        """[b, s, f] to embedded patches [b, m, d], frequency-major, without positions."""
        # The convolution as a product of cut patches: with one input channel a TPU's compiler takes
        # minutes over the gradient of the kernel.
        grid = self.token_grid(fbank_bsf.shape)
        fbank_bsf = fbank_bsf.astype(self.dtype)
        cut_bmp = spectrogram_patches(fbank_bsf, grid, self.config.strides, PATCH)
        kernel, bias = self.patch_embed.kernel[...], self.patch_embed.bias
        embedded = dense(cut_bmp, kernel.reshape(PATCH**2, self.width))
        return embedded if bias is None else add_bias(embedded, bias[...])

    def all_tokens(
        self,
        fbank_bsf: jax.Array,
        *,
        hidden: tuple[jax.Array, jax.Array] | None = None,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Cls, dist and patch tokens, after the norm.

        Args:
          fbank_bsf: [b, s, f] standardised log-mel.
          hidden: (masked_bm, token_d): patches that are True give way to the token before positions
            are added; frequency-major. None hides nothing.
          train: use drop path.
          rngs: stream "dropout".

        Returns:
          [b, 2 + m, d].

        Raises:
          ValueError: the spectrogram has another size than the model was built for.
        """
        x = self.patches(fbank_bsf)
        if x.shape[1] + 2 != self.pos_embed.shape[1]:
            raise ValueError(
                f"a spectrogram [b, s, f] of shape {fbank_bsf.shape} makes {x.shape[1]} patches, "
                f"but the model has positions for {self.pos_embed.shape[1] - 2}; "
                "models.posemb adapts positions to another size"
            )
        if hidden is not None:
            masked_bm, token_d = hidden
            x = jnp.where(masked_bm[..., None], token_d.astype(x.dtype), x)
        first = [
            jnp.broadcast_to(token[...].astype(x.dtype), (x.shape[0], 1, self.width))
            for token in (self.cls_token, self.dist_token)
        ]
        x = jnp.concatenate([*first, x], 1) + self.pos_embed[...].astype(x.dtype)
        x = run_tower(self.blocks, x, train=train, rngs=rngs, remat=self.config.remat)
        return self.norm(x)

    def tokens(
        self,
        fbank_bsf: jax.Array,
        *,
        hidden: tuple[jax.Array, jax.Array] | None = None,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """The patches' tokens [b, m, d]; cls and dist took part in attention and end here."""
        return self.all_tokens(fbank_bsf, hidden=hidden, train=train, rngs=rngs)[:, 2:]

    def features(
        self, fbank_bsf: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, d]: the mean of the cls and the dist token, what the head reads."""
        return self.all_tokens(fbank_bsf, train=train, rngs=rngs)[:, :2].mean(1)

    def __call__(
        self, fbank_bsf: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, s, f] standardised log-mel to logits [b, y]; needs `num_classes`."""
        return self.head(self.head_norm(self.features(fbank_bsf, train=train, rngs=rngs)))


def build(config: ASTConfig, spec: InputSpec, *, dtype: DTypeLike, rngs: nnx.Rngs) -> AST:
    """The encoder for inputs of one size.

    Raises:
      UserError: clips too short for one patch.
    """
    if spec.fbank_frames < PATCH:
        raise UserError(
            f"config.data.clip_sec gives {spec.fbank_frames} spectrogram frames; AST needs {PATCH} "
            f"or more ({PATCH / 100:g} s)."
        )
    sizes: dict[str, Any] = dict(num_frames=spec.fbank_frames, mel_bins=spec.mel_bins)
    return AST(config, **sizes, dtype=dtype, rngs=rngs)
