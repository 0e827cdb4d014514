"""What all fusions take and give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
from flax import nnx

from avt_jax.settings import Block

Tokens = jax.Array | None


class Fusion(Protocol):
    """A module in which the tokens of both modalities meet."""

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
          video_bnd: [b, n, d], or None: the other modality goes through alone.
          audio_bmd: [b, m, d], or None.
          train: use drop path.
          rngs: stream "dropout".

        Returns:
          (video, audio) of the shapes given.
        """


@dataclass(frozen=True)
class Size:
    """The sizes that every fusion has.

    Attributes:
      dim: width.
      num_heads: attention heads.
      num_blocks: blocks, of each modality where it has its own.
      mlp_ratio: hidden width of an MLP over its width.
      drop_path: rate of the last block; grows linearly from 0.
      remat: see `models.layers.towers.remat_setting`.
      modalities: those of the model, of "video" and "audio".
    """

    dim: int
    num_heads: int
    num_blocks: int
    mlp_ratio: float
    drop_path: float
    remat: str
    modalities: tuple[str, ...]


class FusionModule(Protocol):
    """What a fusion's module offers."""

    @property
    def LABEL(self) -> str:
        """The fusion's name in tables and pictures."""

    @property
    def Config(self) -> type[Block]:
        """The fields that only this fusion has; they stand in config.model."""

    @property
    def build(self) -> Any:
        """(config, size, *, dtype, rngs) -> the fusion."""
