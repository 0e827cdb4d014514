"""The Audio-Video Transformer: two encoders, fusion through bottleneck tokens, heads.

Source: arXiv:2401.04154.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from avt_jax.errors import UserError
from avt_jax.models.av_bottleneck import AVBottleneck, MergedAttention
from avt_jax.models.heads import ClassificationHead
from avt_jax.models.layers import check_drop_path, linear

_MODALITIES = {"av": ("video", "audio"), "video": ("video",), "audio": ("audio",)}
_CHOICES = {
    "modalities": tuple(_MODALITIES),
    "fusion": ("bottleneck", "merged"),
    "exchange": ("average", "sequential"),
    "head": ("concat", "average"),
    "precision": ("float32", "bfloat16"),
}


@dataclass(frozen=True)
class AVTConfig:
    """The config block `model`, less its name and the two encoders' blocks.

    Attributes:
      modalities: "av", "audio" or "video".
      dim: width of the fusion.
      num_heads: attention heads of the fusion.
      mlp_ratio: hidden width of the fusion's MLPs over `dim`.
      fusion: "bottleneck" or "merged".
      num_blocks: K, blocks of the fusion.
      num_bottleneck: L, bottleneck tokens.
      exchange: "average" or "sequential", see `AVBottleneck`.
      head: "concat" or "average", see `ClassificationHead`.
      projection_dim: width of the contrastive embeddings.
      temperature: the contrastive temperature at the start.
      drop_path: of the fusion blocks; grows linearly from 0.
      precision: "float32" or "bfloat16" computation; parameters are float32.
    """

    modalities: str
    dim: int
    num_heads: int
    mlp_ratio: float
    fusion: str
    num_blocks: int
    num_bottleneck: int
    exchange: str
    head: str
    projection_dim: int
    temperature: float
    drop_path: float
    precision: str

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"config.model.{name} is {getattr(self, name)!r}; "
                    f"give {' or '.join(map(repr, choices))}."
                )
        if self.num_heads < 1 or self.dim % self.num_heads:
            raise UserError(
                f"config.model.num_heads {self.num_heads} does not divide dim {self.dim}."
            )
        if self.num_bottleneck < 1 or self.num_blocks < 0:
            raise UserError(
                f"config.model.num_bottleneck is {self.num_bottleneck} and num_blocks "
                f"{self.num_blocks}; give at least 1 token and 0 blocks."
            )
        check_drop_path("config.model.drop_path", self.drop_path)

    @property
    def dtype(self) -> jnp.dtype:
        """The computation type."""
        return jnp.dtype(self.precision)


class AVT(nnx.Module):
    """Audio-Video Transformer.

    `encode` and `fuse` are separate calls: a loss may fuse the same tokens a second time, paired
    otherwise, without encoding them again.

    Args:
      config: sizes and options.
      num_classes: {label set: number of classes}.
      video_encoder: a module with `tokens(video) -> [b, n, width]`; None without video.
      audio_encoder: a module with `tokens(fbank) -> [b, m, width]`; None without audio.
      rngs: for the initial weights.
    """

    def __init__(
        self, config: AVTConfig, *, num_classes: Mapping[str, int],
        video_encoder: nnx.Module | None, audio_encoder: nnx.Module | None, rngs: nnx.Rngs,
    ):
        self.modalities = config.modalities
        names = _MODALITIES[config.modalities]
        shared = dict(dtype=config.dtype, rngs=rngs)
        for name, encoder in (("video", video_encoder), ("audio", audio_encoder)):
            if name not in names:
                continue
            setattr(self, f"{name}_encoder", encoder)
            # Encoders of the fusion's own width (AST-Base) need no projection.
            if encoder.width != config.dim:
                setattr(self, f"{name}_proj", linear(encoder.width, config.dim, **shared))
        blocks = dict(
            num_blocks=config.num_blocks, mlp_ratio=config.mlp_ratio, drop_path=config.drop_path
        )
        if config.fusion == "bottleneck":
            self.fusion = AVBottleneck(
                config.dim, config.num_heads, num_bottleneck=config.num_bottleneck,
                exchange=config.exchange, modalities=names, **blocks, **shared,
            )
        else:
            self.fusion = MergedAttention(config.dim, config.num_heads, **blocks, **shared)
        self.head = ClassificationHead(
            config.dim, num_classes, modalities=names, kind=config.head, rngs=rngs
        )
        if len(names) == 2:
            bare = dict(use_bias=False, dtype=jnp.float32, rngs=rngs)
            self.video_embed = linear(config.dim, config.projection_dim, **bare)
            self.audio_embed = linear(config.dim, config.projection_dim, **bare)
            self.contrastive_log_tau = nnx.Param(jnp.log(jnp.float32(config.temperature)))

    def encode(
        self, video_bthwc: jax.Array | None, audio_bsf: jax.Array | None, *, train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Each modality alone.

        Args:
          video_bthwc: [b, t, h, w, 3] normalised, or None; not read by an audio model.
          audio_bsf: [b, s, f] standardised log-mel, or None; not read by a video model.
          train: use drop path and batch statistics.
          rngs: stream "dropout".

        Returns:
          (video [b, n, d], audio [b, m, d]), None for a modality that the model does not have or
          that is not given.
        """
        found = []
        for name, value in (("video", video_bthwc), ("audio", audio_bsf)):
            if name not in _MODALITIES[self.modalities] or value is None:
                found.append(None)
                continue
            tokens = getattr(self, f"{name}_encoder").tokens(value, train=train, rngs=rngs)
            projection = getattr(self, f"{name}_proj", None)
            found.append(tokens if projection is None else projection(tokens))
        return tuple(found)

    def fuse(
        self, video_bnd: jax.Array | None, audio_bmd: jax.Array | None, *, train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> dict[str, Any]:
        """Lets the modalities exchange what they know, and classifies.

        Args:
          video_bnd: [b, n, d] from `encode`, or None: audio goes through its blocks alone.
          audio_bmd: [b, m, d] from `encode`, or None: video goes through its blocks alone.
          train: use drop path.
          rngs: stream "dropout".

        Returns:
          {"logits": {label set: [b, y] float32}, "tokens": {modality: fused [b, n, d]},
          "pooled": {modality: [b, d] float32}}, without the entries of a modality not given.

        Raises:
          ValueError: neither modality is given.
        """
        if video_bnd is None and audio_bmd is None:
            raise ValueError("fuse needs the tokens of at least one modality, got None and None")
        video_bnd, audio_bmd = self.fusion(video_bnd, audio_bmd, train=train, rngs=rngs)
        fused = {"video": video_bnd, "audio": audio_bmd}
        tokens = {name: value for name, value in fused.items() if value is not None}
        pooled = self.head.pool(tokens)
        return {"logits": self.head(pooled), "tokens": tokens, "pooled": pooled}

    def project(self, video_bnd: jax.Array, audio_bmd: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Embeddings for the contrastive loss.

        Args:
          video_bnd: [b, n, d] from `encode`.
          audio_bmd: [b, m, d] from `encode`.

        Returns:
          (video, audio): [b, projection_dim] float32, of length 1.
        """

        def embed(layer, tokens):
            z = layer(tokens.astype(jnp.float32).mean(1))
            # rsqrt of a sum with a floor: its gradient is finite at 0, where that of a norm is not.
            return z * jax.lax.rsqrt(jnp.maximum(jnp.square(z).sum(-1, keepdims=True), 1e-12))

        return embed(self.video_embed, video_bnd), embed(self.audio_embed, audio_bmd)
