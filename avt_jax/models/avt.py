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

from avt_jax.models import scopes
from avt_jax.models.decoder import Decoder
from avt_jax.models.encoders import Encoder
from avt_jax.models.fusions import FUSIONS
from avt_jax.models.fusions.interface import Fusion, Size
from avt_jax.models.heads import ClassificationHead
from avt_jax.models.kernels.choice import AUTO, KERNELS, KERNELS_DOC
from avt_jax.models.layers import PRECISIONS, check_heads, linear
from avt_jax.models.layers.towers import remat_setting
from avt_jax.models.patches import hide_pixels, spectrogram_patches, video_patches
from avt_jax.settings import Block, setting

_MODALITIES = {"av": ("video", "audio"), "video": ("video",), "audio": ("audio",)}


@dataclass(frozen=True)
class AVTConfig(Block, where="config.model"):
    """The config block `model`, less its name, the fusions' own fields and the encoders' blocks."""

    modalities: str = setting("av", "what the model reads", choices=tuple(_MODALITIES))
    dim: int = setting(768, "width of the fusion", at_least=1)
    num_heads: int = setting(12, "attention heads of the fusion; they divide dim", at_least=1)
    mlp_ratio: float = setting(4.0, "hidden width of the fusion's MLPs over dim", above=0)
    fusion: str = setting(
        "bottleneck", "how the modalities meet, see docs/method.md", choices=lambda: FUSIONS
    )
    num_blocks: int = setting(4, "K, blocks of the fusion", at_least=0)
    head: str = setting(
        "concat",
        "concat: one linear layer over the means of both modalities; average: one for each, "
        "logits averaged",
        choices=("concat", "average"),
    )
    projection_dim: int = setting(256, "width of the contrastive embeddings", at_least=1)
    temperature: float = setting(0.07, "contrastive temperature at the start; learned", above=0)
    contrastive_bias: float = setting(
        -10.0, "of the sigmoid form of the contrastive loss, at the start; learned"
    )
    drop_path: float = setting(
        0.1, "drop path rate of the last fusion block; grows linearly from 0", at_least=0, below=1
    )
    remat: str = remat_setting()
    decoders: tuple[str, ...] = setting(
        ("audio",),
        "modalities whose hidden patches can be reconstructed; one that the model does not have is "
        "passed over",
        choices=("audio", "video"),
    )
    decoder_dim: int = setting(256, "width of a decoder", at_least=1)
    decoder_depth: int = setting(2, "blocks of a decoder", at_least=0)
    decoder_heads: int = setting(
        4, "attention heads of a decoder; they divide decoder_dim", at_least=1
    )
    precision: str = setting(
        "bfloat16", "type of the computation; parameters are float32", choices=PRECISIONS
    )
    kernels: str = setting(AUTO, KERNELS_DOC, choices=KERNELS)

    def check(self) -> None:
        """Refuses attention heads that do not divide their widths."""
        check_heads(self)
        check_heads(self, "decoder_heads", "decoder_dim")

    @property
    def dtype(self) -> jnp.dtype:
        """The computation type."""
        return jnp.dtype(self.precision)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, of "video" and "audio"."""
        return _MODALITIES[self.modalities]

    @property
    def abilities(self) -> frozenset[str]:
        """What such a model can do besides classifying, in the words of a loss's needs."""
        both = {"project", "match"} if len(self.names) == 2 else set()
        decoders = [name for name in self.decoders if name in self.names]
        return frozenset(both | {f"reconstruct {name}" for name in decoders})


class AVT(nnx.Module):
    """Audio-Video Transformer.

    `encode` and `fuse` are separate calls: a loss may fuse the same tokens a second time, paired
    otherwise, without encoding them again.

    Args:
      config: sizes and options.
      num_classes: {label set: number of classes}.
      fusion: the fields that only the fusion named in `config` has.
      video_encoder: of video [b, t, h, w, 3]; None without video.
      audio_encoder: of spectrograms [b, s, f]; None without audio.
      patch_values: {modality: numbers in the patch of one token}, for the decoders.
      rngs: for the initial weights.

    Raises:
      ValueError: an encoder that the modalities need is None.
    """

    video_encoder: Encoder
    audio_encoder: Encoder

    def __init__(
        self,
        config: AVTConfig,
        *,
        num_classes: Mapping[str, int],
        fusion: Block,
        video_encoder: Encoder | None,
        audio_encoder: Encoder | None,
        patch_values: Mapping[str, int],
        rngs: nnx.Rngs,
    ):
        self.modalities = config.modalities
        # What the shapes of its arrays do not tell, for a training that starts from them.
        self.fusion_kind = config.fusion
        self.num_heads, self.decoder_heads = config.num_heads, config.decoder_heads
        names = config.names
        shared: dict[str, Any] = dict(dtype=config.dtype, rngs=rngs)
        for name, encoder in (("video", video_encoder), ("audio", audio_encoder)):
            if name not in names:
                continue
            if encoder is None:
                raise ValueError(f"modalities {config.modalities!r} need a {name} encoder")
            setattr(self, f"{name}_encoder", encoder)
            # Encoders of the fusion's own width (AST-Base) need no projection.
            if encoder.width != config.dim:
                setattr(self, f"{name}_proj", linear(encoder.width, config.dim, **shared))
        size = Size(
            dim=config.dim,
            num_heads=config.num_heads,
            num_blocks=config.num_blocks,
            mlp_ratio=config.mlp_ratio,
            drop_path=config.drop_path,
            remat=config.remat,
            modalities=names,
        )
        self.fusion: Fusion = FUSIONS[config.fusion].build(fusion, size, **shared)
        self.head = ClassificationHead(
            config.dim, num_classes, modalities=names, kind=config.head, rngs=rngs
        )
        if len(names) == 2:
            bare: dict[str, Any] = dict(use_bias=False, dtype=jnp.float32, rngs=rngs)
            self.video_embed = linear(config.dim, config.projection_dim, **bare)
            self.audio_embed = linear(config.dim, config.projection_dim, **bare)
            self.contrastive_log_tau = nnx.Param(jnp.log(jnp.float32(config.temperature)))
            self.contrastive_bias = nnx.Param(jnp.float32(config.contrastive_bias))
            self.match_head = linear(2 * config.dim, 1, dtype=jnp.float32, rngs=rngs)
        self._add_decoders(config, patch_values, rngs)

    def _add_decoders(
        self, config: AVTConfig, patch_values: Mapping[str, int], rngs: nnx.Rngs
    ) -> None:
        decoders = [name for name in config.decoders if name in config.names]
        for name in decoders:
            decoder = Decoder(
                config.dim,
                patch_values[name],
                dim=config.decoder_dim,
                depth=config.decoder_depth,
                num_heads=config.decoder_heads,
                dtype=config.dtype,
                rngs=rngs,
            )
            setattr(self, f"{name}_decoder", decoder)
        if "audio" in decoders:
            init = nnx.initializers.normal(stddev=0.02)
            self.audio_mask_token = nnx.Param(init(rngs.params(), (self.audio_encoder.width,)))
        if "video" in decoders:
            self.video_mask_colour = nnx.Param(jnp.zeros(3))  # the mean of normalised pixels

    @property
    def projects(self) -> bool:
        """Whether `project` can be called."""
        return len(_MODALITIES[self.modalities]) == 2

    def encode(
        self,
        video_bthwc: jax.Array | None,
        audio_bsf: jax.Array | None,
        *,
        masked: Mapping[str, jax.Array] | None = None,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Each modality alone.

        Args:
          video_bthwc: [b, t, h, w, 3] normalised, or None; not read by an audio model.
          audio_bsf: [b, s, f] standardised log-mel, or None; not read by a video model.
          masked: {modality: [b, tokens] bool, True = hidden}, in the order of the tokens. What is
            hidden is replaced before the encoder: a spectrogram's patches by a learned token, a
            video's tubelets by a learned colour. Needs the modality's decoder.
          train: use drop path and batch statistics.
          rngs: stream "dropout".

        Returns:
          (video [b, n, d], audio [b, m, d]), None for a modality that the model does not have or
          that is not given.
        """
        masked = {} if masked is None else masked
        found: dict[str, jax.Array] = {}
        for name, value in (("video", video_bthwc), ("audio", audio_bsf)):
            if name not in _MODALITIES[self.modalities] or value is None:
                continue
            encoder: Encoder = getattr(self, f"{name}_encoder")
            options: dict[str, Any] = dict(train=train, rngs=rngs)
            with scopes.part(f"{name} encoder"):
                if name in masked and name == "audio":
                    options["hidden"] = (masked[name], self.audio_mask_token[...])
                elif name in masked:
                    frames, rows, columns = encoder.token_grid(value.shape)
                    colour = self.video_mask_colour[...]
                    value = hide_pixels(value, masked[name], (frames, rows, columns), colour)
                tokens = encoder.tokens(value, **options)
                projection = getattr(self, f"{name}_proj", None)
                found[name] = tokens if projection is None else projection(tokens)
        return found.get("video"), found.get("audio")

    def fuse(
        self,
        video_bnd: jax.Array | None,
        audio_bmd: jax.Array | None,
        *,
        train: bool = False,
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
        with scopes.part(scopes.FUSION):
            video_bnd, audio_bmd = self.fusion(video_bnd, audio_bmd, train=train, rngs=rngs)
        fused = {"video": video_bnd, "audio": audio_bmd}
        tokens = {name: value for name, value in fused.items() if value is not None}
        with scopes.part(scopes.HEADS):
            pooled = self.head.pool(tokens)
            return {"logits": self.head(pooled), "tokens": tokens, "pooled": pooled}

    @scopes.part(scopes.HEADS)
    def project(self, video_bnd: jax.Array, audio_bmd: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Embeddings for the contrastive loss.

        Args:
          video_bnd: [b, n, d] from `encode`.
          audio_bmd: [b, m, d] from `encode`.

        Returns:
          (video, audio): [b, projection_dim] float32, of length 1.
        """

        def embed(layer: nnx.Linear, tokens: jax.Array) -> jax.Array:
            z = layer(tokens.astype(jnp.float32).mean(1))
            # rsqrt of a sum with a floor: its gradient is finite at 0, where that of a norm is not.
            return z * jax.lax.rsqrt(jnp.maximum(jnp.square(z).sum(-1, keepdims=True), 1e-12))

        return embed(self.video_embed, video_bnd), embed(self.audio_embed, audio_bmd)

    @scopes.part(scopes.HEADS)
    def match(self, pooled: Mapping[str, jax.Array]) -> jax.Array:
        """Whether sound and picture belong together.

        Args:
          pooled: {"video": [b, d], "audio": [b, d]} from `fuse`.

        Returns:
          [b] float32 logits; positive = they do.
        """
        return self.match_head(jnp.concatenate([pooled["video"], pooled["audio"]], -1))[:, 0]

    @scopes.part(scopes.HEADS)
    def reconstruct(
        self,
        name: str,
        tokens: Mapping[str, jax.Array],
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Predicts the content of all patches of a modality.

        Args:
          name: "audio" or "video"; the model has its decoder.
          tokens: {modality: [b, n, d]} from `fuse`.
          train: use drop path.
          rngs: stream "dropout".

        Returns:
          [b, n, numbers in a patch] float32, normalised within each patch.
        """
        decoder = getattr(self, f"{name}_decoder")
        return decoder(tokens[name], train=train, rngs=rngs).astype(jnp.float32)

    def patches(self, name: str, value: jax.Array) -> jax.Array:
        """What `reconstruct` is to predict, before its normalisation.

        Args:
          name: "audio" or "video".
          value: [b, s, f] standardised log-mel, or [b, t, h, w, 3] normalised video.

        Returns:
          [b, n, numbers in a patch], in the order of the tokens.
        """
        encoder = getattr(self, f"{name}_encoder")
        grid = encoder.token_grid(value.shape)
        if name == "audio":
            return spectrogram_patches(value, grid, encoder.config.strides)
        return video_patches(value, grid)
