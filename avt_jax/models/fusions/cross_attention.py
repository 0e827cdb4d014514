"""Cross-attention: in every block each modality attends to the tokens of the other.

Source: the co-attention of ViLBERT, arXiv:1908.02265, sec. 2.2, in the order of LXMERT,
arXiv:1908.07490, sec. 2.2: cross-attention, self-attention, MLP. Deviations: norms stand before
what they feed and not behind the sum, as everywhere in this package; each direction has weights of
its own; drop path in place of dropout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from avt_jax.models.fusions.interface import Size, Tokens
from avt_jax.models.layers import CrossAttention, Rate, TransformerBlock, drop_path, recomputed
from avt_jax.models.layers.norms import LayerNorm
from avt_jax.models.layers.towers import Call, run_towers, transformer_blocks
from avt_jax.settings import Block

LABEL = "cross-attention"


@dataclass(frozen=True)
class Config(Block, where="config.model"):
    """This fusion has no fields of its own."""


class CrossBlock(TransformerBlock):
    """Attention to the other modality, then a transformer block; each on a residual branch.

    Args:
      dim: width.
      num_heads: attention heads.
      sees_other: False for a model of one modality: a plain transformer block.
      dtype: computation type.
      rngs: for the initial weights.
      options: see `TransformerBlock`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        sees_other: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        super().__init__(dim, num_heads, dtype=dtype, rngs=rngs, **options)
        if sees_other:
            self.query_norm = LayerNorm(dim)
            self.other_norm = LayerNorm(dim)
            self.cross = CrossAttention(dim, num_heads, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x_bnd: jax.Array,
        other_bmd: Tokens = None,
        /,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        rate: Rate | None = None,
        remat: str = "none",
    ) -> jax.Array:
        """[b, n, d] tokens that have seen `other_bmd`; without it, only each other."""
        if other_bmd is not None:
            look = recomputed(
                lambda x: self.cross(self.query_norm(x), self.other_norm(other_bmd)), remat
            )
            x_bnd = x_bnd + drop_path(look(x_bnd), **self.drop_options(rate, train, rngs))
        return super().__call__(x_bnd, train=train, rngs=rngs, rate=rate, remat=remat)


class CrossModalAttention(nnx.Module):
    """K blocks in which each modality attends to the other, then to itself.

    Both directions of a block read what the block is given. The cost is that of 2 N M + N^2 + M^2
    token pairs, those of merged attention, in twice as many products.

    Args:
      dim: width.
      num_heads: attention heads.
      num_blocks: K, for each modality.
      modalities: names with blocks of their own, of "video" and "audio"; one alone has nothing to
        attend to and gets plain transformer blocks.
      mlp_ratio: hidden width of an MLP over its width.
      drop_path: rate of the last block; grows linearly from 0.
      remat: see `layers.towers.remat_setting`.
      dtype: computation type.
      rngs: for the initial weights.
    """

    video_blocks: nnx.List[CrossBlock]
    audio_blocks: nnx.List[CrossBlock]

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        num_blocks: int = 4,
        modalities: Sequence[str] = ("video", "audio"),
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        remat: str = "none",
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.remat = remat
        for name in modalities:
            blocks = transformer_blocks(
                num_blocks,
                dim,
                num_heads,
                block=CrossBlock,
                sees_other=len(modalities) == 2,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
                dtype=dtype,
                rngs=rngs,
            )
            setattr(self, f"{name}_blocks", blocks)

    def __call__(
        self,
        video_bnd: Tokens,
        audio_bmd: Tokens,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Tokens, Tokens]:
        """Fuses the tokens of a batch; arguments and result as those of `Fusion`."""
        given = {"video": video_bnd, "audio": audio_bmd}
        tokens = {name: value for name, value in given.items() if value is not None}

        names = tuple(tokens)  # not the order of a dictionary: JAX sorts it

        def layer(calls: list[Call], tokens: dict[str, jax.Array]) -> dict[str, jax.Array]:
            if len(names) == 1:
                return {name: calls[0](tokens[name]) for name in names}
            pairs = zip(calls, names, reversed(names), strict=True)
            return {name: call(tokens[name], tokens[other]) for call, name, other in pairs}

        towers = [getattr(self, f"{name}_blocks") for name in names]
        options: dict[str, Any] = dict(train=train, rngs=rngs, remat=self.remat)
        tokens = run_towers(layer, towers, tokens, **options)
        return tokens.get("video"), tokens.get("audio")


def build(config: Config, size: Size, *, dtype: DTypeLike, rngs: nnx.Rngs) -> CrossModalAttention:
    """The fusion of these sizes."""
    del config
    return CrossModalAttention(**dataclasses.asdict(size), dtype=dtype, rngs=rngs)
