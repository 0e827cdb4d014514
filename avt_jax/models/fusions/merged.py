"""Merged attention: one transformer over the tokens of both modalities, the usual baseline."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from avt_jax.models.fusions.interface import Size, Tokens
from avt_jax.models.layers.towers import run_tower, transformer_blocks
from avt_jax.settings import Block

LABEL = "merged attention"


@dataclass(frozen=True)
class Config(Block, where="config.model"):
    """This fusion has no fields of its own."""


class MergedAttention(nnx.Module):
    """The baseline: one transformer over the concatenated tokens of both modalities.

    Args:
      dim: width.
      num_heads: attention heads.
      num_blocks: transformer blocks.
      mlp_ratio: hidden width of an MLP over its width.
      drop_path: rate of the last block; grows linearly from 0.
      remat: see `layers.towers.remat_setting`.
      dtype: computation type.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        num_blocks: int = 4,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        remat: str = "none",
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.remat = remat
        self.blocks = transformer_blocks(
            num_blocks,
            dim,
            num_heads,
            mlp_ratio=mlp_ratio,
            drop_path=drop_path,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(
        self,
        video_bnd: Tokens,
        audio_bmd: Tokens,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Tokens, Tokens]:
        """Fuses the tokens of a batch; arguments and result as those of `Fusion`."""
        present = [tokens for tokens in (video_bnd, audio_bmd) if tokens is not None]
        joint = jnp.concatenate(present, 1)
        joint = run_tower(self.blocks, joint, train=train, rngs=rngs, remat=self.remat)
        split = present[0].shape[1]
        if audio_bmd is None:
            return joint, None
        if video_bnd is None:
            return None, joint
        return joint[:, :split], joint[:, split:]


def build(config: Config, size: Size, *, dtype: DTypeLike, rngs: nnx.Rngs) -> MergedAttention:
    """The fusion of these sizes."""
    del config
    fields = dataclasses.asdict(size)
    del fields["modalities"]  # one set of blocks for whatever comes
    return MergedAttention(**fields, dtype=dtype, rngs=rngs)
