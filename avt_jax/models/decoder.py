"""Small decoder from fused tokens to the content of their patches.

Source: He et al., arXiv:2111.06377 (a light decoder); arXiv:2401.04154 reconstructs from fused
tokens, so that one modality helps with what is hidden of the other.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx
from jax.typing import DTypeLike

from avt_jax.models.layers import linear
from avt_jax.models.layers.norms import LayerNorm
from avt_jax.models.layers.towers import run_tower, transformer_blocks


class Decoder(nnx.Module):
    """Transformer blocks of a smaller width, then one linear layer per patch.

    The tokens know their places: positions were added before the encoder.

    Args:
      in_dim: width of the fused tokens.
      num_values: numbers in a patch.
      dim: width of the decoder.
      depth: its blocks; 0 = the linear layer alone.
      num_heads: attention heads.
      dtype: computation type.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        in_dim: int,
        num_values: int,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        shared: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.embed = linear(in_dim, dim, **shared)
        self.blocks = transformer_blocks(depth, dim, num_heads, **shared)
        self.norm = LayerNorm(dim)
        self.head = linear(dim, num_values, **shared)

    def __call__(
        self, tokens_bnd: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, n, in_dim] fused tokens to [b, n, num_values], on the normalised scale."""
        x = self.embed(tokens_bnd)
        x = run_tower(self.blocks, x, train=train, rngs=rngs)
        return self.head(self.norm(x))
