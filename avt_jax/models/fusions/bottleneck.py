"""Fusion through a few bottleneck tokens that both modalities attend to.

Source: arXiv:2401.04154, AVBottleneck.
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
from avt_jax.models.layers import TransformerBlock
from avt_jax.models.layers.towers import Call, run_towers, transformer_blocks
from avt_jax.settings import Block, setting

LABEL = "bottleneck"


@dataclass(frozen=True)
class Config(Block, where="config.model"):
    """The own fields of the fusion "bottleneck"."""

    num_bottleneck: int = setting(4, "L, bottleneck tokens", at_least=1)
    exchange: str = setting(
        "average",
        "average: both modalities read the same bottleneck tokens, and the next ones are the mean "
        "of their two copies; sequential: audio reads the copy that video has just written",
        choices=("average", "sequential"),
    )


class AVBottleneck(nnx.Module):
    """K blocks in which each modality attends to itself and to L shared bottleneck tokens.

    The cost is that of (N + L)^2 + (M + L)^2 token pairs, where merged attention has (N + M)^2.

    Args:
      dim: width.
      num_heads: attention heads.
      num_blocks: K.
      num_bottleneck: L.
      exchange: "average": both modalities read the same bottleneck and the next one is the mean of
        their two copies; "sequential": audio reads the copy that video has just written, and the
        next bottleneck is still the mean.
      modalities: names with blocks of their own, of "video" and "audio".
      mlp_ratio: hidden width of an MLP over its width.
      drop_path: rate of the last block; grows linearly from 0.
      remat: see `layers.towers.remat_setting`.
      dtype: computation type.
      rngs: for the initial weights.

    Source: arXiv:2401.04154, AVBottleneck. `exchange` is open there; "average" is our default.
    """

    video_blocks: nnx.List[TransformerBlock]
    audio_blocks: nnx.List[TransformerBlock]

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        num_blocks: int = 4,
        num_bottleneck: int = 4,
        exchange: str = "average",
        modalities: Sequence[str] = ("video", "audio"),
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        remat: str = "none",
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.exchange, self.remat = exchange, remat
        init = nnx.initializers.normal(stddev=0.02)
        self.bottleneck = nnx.Param(init(rngs.params(), (1, num_bottleneck, dim)))
        for name in modalities:
            blocks = transformer_blocks(
                num_blocks,
                dim,
                num_heads,
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
        """Fuses the tokens of a batch.

        Args:
          video_bnd: [b, n, d], or None: only audio and the bottleneck go through.
          audio_bmd: [b, m, d], or None.
          train: use drop path.
          rngs: stream "dropout".

        Returns:
          (video, audio) of the shapes given.
        """
        present = video_bnd if video_bnd is not None else audio_bmd
        if present is None:
            raise ValueError(
                "a fusion needs the tokens of at least one modality, got None and None"
            )
        shape = (present.shape[0], *self.bottleneck.shape[1:])
        bottleneck = jnp.broadcast_to(self.bottleneck[...].astype(present.dtype), shape)

        given = {"video": video_bnd, "audio": audio_bmd}
        tokens = {name: value for name, value in given.items() if value is not None}

        names = tuple(tokens)  # not the order of a dictionary: JAX sorts it

        def layer(
            calls: list[Call], carry: tuple[dict[str, jax.Array], jax.Array]
        ) -> tuple[dict[str, jax.Array], jax.Array]:
            tokens, bottleneck = carry
            after: dict[str, jax.Array] = {}
            written: list[jax.Array] = []
            for call, name in zip(calls, names, strict=True):
                own = tokens[name]
                sequential = self.exchange == "sequential" and written
                seen = written[0] if sequential else bottleneck
                joint = call(jnp.concatenate([own, seen], 1))
                after[name] = joint[:, : own.shape[1]]
                written.append(joint[:, own.shape[1] :])
            return after, sum(written[1:], written[0]) / len(written)

        towers = [getattr(self, f"{name}_blocks") for name in names]
        options: dict[str, Any] = dict(train=train, rngs=rngs, remat=self.remat)
        tokens, _ = run_towers(layer, towers, (tokens, bottleneck), **options)
        return tokens.get("video"), tokens.get("audio")


def build(config: Config, size: Size, *, dtype: DTypeLike, rngs: nnx.Rngs) -> AVBottleneck:
    """The fusion of these sizes."""
    fields = dataclasses.asdict(size) | config.to_dict()
    return AVBottleneck(**fields, dtype=dtype, rngs=rngs)
