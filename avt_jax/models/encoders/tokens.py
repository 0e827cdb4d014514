"""Encoders that compute nothing: their input is what other encoders gave, read from a file.

`avt tokens` runs frozen encoders once over all clips; a model with these in their place trains on
what they gave.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jax.typing import DTypeLike

from avt_jax.errors import UserError
from avt_jax.models.inputs import InputSpec
from avt_jax.settings import Block

NAME = "tokens"


@dataclass(frozen=True)
class VideoTokensConfig(Block, where="config.model.video_encoder"):
    """Cached tokens have no settings; their shape is config.data.video_tokens."""


@dataclass(frozen=True)
class AudioTokensConfig(Block, where="config.model.audio_encoder"):
    """Cached tokens have no settings; their shape is config.data.audio_tokens."""


class CachedTokens(nnx.Module):
    """Gives back its input.

    Args:
      config: without fields.
      shape: (tokens, width) of a clip.
      dtype: type of what it gives, that of the model's computation.
    """

    def __init__(self, config: Block, shape: tuple[int, int], *, dtype: DTypeLike):
        self.config = config
        self.shape = shape
        self.dtype = dtype

    @property
    def width(self) -> int:
        """Width of the tokens."""
        return self.shape[1]

    def token_grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(tokens,) of an input [b, n, d] of this shape."""
        return (shape[1],)

    def tokens(
        self, tokens_bnd: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, n, d] cached tokens to the same in the type of the computation.

        Raises:
          ValueError: an input of another shape.
        """
        del train, rngs  # nothing here is random
        if tokens_bnd.shape[1:] != self.shape:
            raise ValueError(f"cached tokens of shape {tokens_bnd.shape[1:]}, not {self.shape}")
        return tokens_bnd.astype(self.dtype)


class Listed:
    """The cached tokens of a modality as the registries list an encoder.

    Args:
      modality: "video" or "audio".
      config: its config block.
    """

    def __init__(self, modality: str, config: Block):
        self._modality = modality
        self.VARIANTS: Mapping[str, Block] = dict.fromkeys(("cached", "tiny", "smoke"), config)

    def build(
        self, config: Block, spec: InputSpec, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> CachedTokens:
        """The encoder for tokens of one shape.

        Raises:
          UserError: the shape is not given.
        """
        del rngs
        shape: tuple[int, int] = getattr(spec, f"{self._modality}_tokens")
        if not any(shape):
            raise UserError(
                f"config.model.{self._modality}_encoder.name is {NAME}, but "
                f"config.data.{self._modality}_tokens gives no shape; --config own:tokens "
                "--config.data.path=TOKENS sets both."
            )
        return CachedTokens(config, shape, dtype=dtype)


def check(chosen: Mapping[str, str], decoders: Collection[str], spec: InputSpec) -> None:
    """Refuses encoders and decoders that have nothing to work on.

    Args:
      chosen: {modality: name of its encoder}.
      decoders: modalities whose patches the model is to reconstruct.
      spec: what is read.

    Raises:
      UserError: tokens are read where clips should be, the other way round, or either is decoded.
    """
    cached = {name == NAME for name in chosen.values()}
    if cached != {spec.is_tokens}:
        names = ", ".join(f"{name} for {modality}" for modality, name in chosen.items())
        raise UserError(
            f"config.model reads with {names}, and config.data.video_tokens and audio_tokens are "
            f"{spec.video_tokens} and {spec.audio_tokens}; cached tokens need AVT with the "
            f"encoders {NAME!r}, as --config own:tokens has it, and clips need others."
        )
    if spec.is_tokens and set(decoders) & set(chosen):
        raise UserError(
            f"config.model.decoders is {tuple(decoders)!r}; cached tokens hold no patches to "
            "reconstruct, give ()."
        )


VIDEO: Any = Listed("video", VideoTokensConfig())
AUDIO: Any = Listed("audio", AudioTokensConfig())
