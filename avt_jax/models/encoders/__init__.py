"""Encoders of one modality each, by name. A new encoder is a module here and a line below.

Such a module has the encoder's config block, whose default is the first of its `VARIANTS`; those
include "tiny" (trains on a CPU) and "smoke" (one block of each kind, to compile fast).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import nnx

from avt_jax.models.encoders import ast, tokens, uniformer, vit
from avt_jax.settings import Block


class Encoder(Protocol):
    """What AVT asks of an encoder."""

    @property
    def config(self) -> Any:
        """Its config block; that of an audio encoder has `strides`, of (frequency, time)."""

    @property
    def width(self) -> int:
        """Width of its tokens."""

    def token_grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Tokens along each axis of an input of this shape, the batch with it."""

    def tokens(
        self, value: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[b, ...] input to [b, n, width]; an audio encoder takes `hidden`, as `AST.tokens`."""


class EncoderModule(Protocol):
    """What an encoder's module offers."""

    @property
    def VARIANTS(self) -> Mapping[str, Block]:
        """{name: config}, the default first."""

    @property
    def build(self) -> Any:
        """(config, spec, *, dtype, rngs) -> the encoder; refuses inputs that are too small."""


VIDEO_ENCODERS: dict[str, EncoderModule] = {
    "uniformer": uniformer,
    "vit": vit,
    tokens.NAME: tokens.VIDEO,
}
AUDIO_ENCODERS: dict[str, EncoderModule] = {
    "ast": ast,
    tokens.NAME: tokens.AUDIO,
}
