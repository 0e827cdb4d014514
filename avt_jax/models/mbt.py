"""Multimodal Bottleneck Transformer (MBT): the baseline that AVT is measured against.

Source: Nagrani et al., arXiv:2107.00135, and the authors' model in Scenic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from avt_jax.errors import UserError
from avt_jax.models import scopes
from avt_jax.models.encoders.vit import PatchTokens, ViTConfig, tower_blocks
from avt_jax.models.fusions.interface import Tokens
from avt_jax.models.kernels.choice import AUTO, KERNELS, KERNELS_DOC
from avt_jax.models.layers import PRECISIONS, linear
from avt_jax.models.layers.norms import LayerNorm
from avt_jax.models.layers.towers import Call, run_tower, run_towers
from avt_jax.models.layers.towers import Tower as Blocks
from avt_jax.settings import setting

# In the order of the original's sequences.
_MODALITIES = {"av": ("audio", "video"), "video": ("video",), "audio": ("audio",)}
# {modality: tokens [b, n, d]}.
_ByName = dict[str, jax.Array]
_BOTTLENECK_INIT = nnx.initializers.normal(stddev=0.02)


@dataclass(frozen=True)
class MBTConfig(ViTConfig, where="config.model"):
    """The config block of MBT, less its name. The defaults are MBT-Base.

    What it shares with `ViTConfig` describes the tower of each modality; a patch of the spectrogram
    is one frame of `patch_px` x `patch_px`.
    """

    drop_path: float = setting(
        0.0, "drop path rate of the last block; grows linearly from 0", at_least=0, below=1
    )
    modalities: str = setting("av", "what the model reads", choices=tuple(_MODALITIES))
    fusion: str = setting(
        "bottleneck",
        "bottleneck: through bottleneck tokens; merged: attention over the tokens of both, by one "
        "set of weights if share_encoder, else by one for each modality",
        choices=lambda: _FUSIONS,
    )
    fusion_layer: int = setting(
        8, "first layer in which the modalities meet, 0 to depth", at_least=0
    )
    num_bottleneck: int = setting(
        4,
        "B, bottleneck tokens; a token classifier adds one more, as in the original",
        at_least=1,
    )
    share_encoder: bool = setting(False, "one set of blocks for both modalities")
    classifier: str = setting(
        "token",
        "token: a class token for each modality and the mean of their logits (in training the mean "
        "of their losses); gap: the mean of all tokens",
        choices=("token", "gap"),
    )
    test_with_bottlenecks: bool = setting(
        True, "False leaves the exchange through bottlenecks out in evaluation"
    )
    precision: str = setting(
        "float32", "type of the computation; parameters are float32", choices=PRECISIONS
    )
    kernels: str = setting(AUTO, KERNELS_DOC, choices=KERNELS)

    def check(self) -> None:
        """Refuses a fusion beyond the last layer, and heads that do not divide the width."""
        super().check()
        if self.fusion_layer > self.depth:
            raise UserError(
                f"config.model.fusion_layer is {self.fusion_layer}; give a layer of 0 to depth "
                f"({self.depth})."
            )

    @property
    def dtype(self) -> jnp.dtype:
        """The computation type."""
        return jnp.dtype(self.precision)

    @property
    def abilities(self) -> frozenset[str]:
        """What such a model can do besides classifying: nothing."""
        return frozenset()


class Tower(nnx.Module):
    """One modality's tokens and, unless the encoder is shared, its blocks."""

    def __init__(
        self,
        config: MBTConfig,
        size: tuple[int, int, int],
        patch: tuple[int, int, int],
        *,
        own_blocks: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.embed = PatchTokens(
            size,
            patch,
            config.dim,
            class_token=config.classifier == "token",
            dtype=dtype,
            rngs=rngs,
        )
        if own_blocks:
            self.blocks = tower_blocks(config, dtype=dtype, rngs=rngs)

    def token_grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Patches along (t, h, w) of a video [b, t, h, w, 3] or a spectrogram [b, s, f]."""
        size = (1, *shape[1:]) if len(shape) == 3 else shape[1:4]
        frames, rows, columns = (n // p for n, p in zip(size, self.embed.patch, strict=True))
        return frames, rows, columns


class MBT(nnx.Module):
    """MBT over clips of one fixed size.

    Args:
      config: sizes and options.
      num_classes: {label set: number of classes}.
      num_frames: video frames of the input.
      frame_size_px: height and width of a frame.
      fbank_frames: spectrogram frames of the input.
      mel_bins: mel bins of the spectrogram.
      dtype: computation type; None takes the config's. Parameters are float32.
      rngs: for the initial weights.

    Where the modalities meet, each block sees its own modality's tokens with the bottleneck tokens,
    and the next bottleneck is the mean of the two copies; or, with merged attention, the other
    modality's tokens in front. Both read the layer's input. With a shared encoder, merged attention
    is over one joint sequence.
    """

    video: Tower
    audio: Tower

    def __init__(
        self,
        config: MBTConfig,
        *,
        num_classes: Mapping[str, int],
        num_frames: int,
        frame_size_px: int,
        fbank_frames: int,
        mel_bins: int,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.modalities = config.modalities
        dtype = config.dtype if dtype is None else dtype
        names = _MODALITIES[config.modalities]
        sizes = {
            "video": (num_frames, frame_size_px, frame_size_px),
            "audio": (1, fbank_frames, mel_bins),
        }
        for name in names:
            patch = (config.tubelet_frames if name == "video" else 1, *(config.patch_px,) * 2)
            # A shared encoder lives in the video tower.
            own_blocks = name == "video" or not (config.share_encoder and "video" in names)
            tower = Tower(config, sizes[name], patch, own_blocks=own_blocks, dtype=dtype, rngs=rngs)
            setattr(self, name, tower)
        if config.fusion == "bottleneck" and len(names) == 2:
            length = config.num_bottleneck + (config.classifier == "token")
            shape = (1, length, config.dim)
            self.bottleneck = nnx.Param(_BOTTLENECK_INIT(rngs.params(), shape))
        self.norm = LayerNorm(config.dim)
        # The heads are small and the softmax behind them is sensitive: float32 at least.
        head: dict[str, Any] = dict(dtype=jnp.promote_types(dtype, jnp.float32), rngs=rngs)
        self.heads = nnx.Dict(
            {name: linear(config.dim, classes, **head) for name, classes in num_classes.items()}
        )

    @property
    def projects(self) -> bool:
        """Whether there are projections into a space of both modalities: there are none."""
        return False

    def encode(
        self,
        video_bthwc: jax.Array | None,
        audio_bsf: jax.Array | None,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Tokens, Tokens]:
        """Each modality alone: its embedding and the layers before the fusion.

        Args:
          video_bthwc: [b, t, h, w, 3] normalised, or None; not read by an audio model.
          audio_bsf: [b, s, f] standardised log-mel, or [b, s, f, 3] as the original has it, or
            None; not read by a video model.
          train: use drop path.
          rngs: stream "dropout".

        Returns:
          (video [b, n, d], audio [b, m, d]) with the class tokens first; None for a modality that
          the model does not have or that is not given.
        """
        if audio_bsf is not None:
            if audio_bsf.ndim == 3:
                audio_bsf = jnp.broadcast_to(audio_bsf[..., None], (*audio_bsf.shape, 3))
            audio_bsf = audio_bsf[:, None]
        x = {}
        for name, value in (("audio", audio_bsf), ("video", video_bthwc)):
            if name in _MODALITIES[self.modalities] and value is not None:
                with scopes.part(f"{name} encoder"):
                    x[name] = getattr(self, name).embed(value)
        options = self._options(train, rngs, span=(0, self.config.fusion_layer))
        for name, tokens in x.items():
            with scopes.part(f"{name} encoder"):
                x[name] = run_tower(self._blocks(name), tokens, **options)
        return x.get("video"), x.get("audio")

    @scopes.part(scopes.FUSION)
    def fusion(
        self,
        video_bnd: Tokens,
        audio_bmd: Tokens,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Tokens, Tokens]:
        """The layers from the fusion on; arguments and result as those of `encode`'s tokens."""
        given = (("audio", audio_bmd), ("video", video_bnd))
        x = {name: tokens for name, tokens in given if tokens is not None}
        span = (self.config.fusion_layer, self.config.depth)
        x = _FUSIONS[self.config.fusion](self, x, train, self._options(train, rngs, span=span))
        return x.get("video"), x.get("audio")

    def fuse(
        self,
        video_bnd: Tokens,
        audio_bmd: Tokens,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> dict[str, Any]:
        """Lets the modalities exchange what they know, and classifies.

        Args:
          video_bnd: [b, n, d] from `encode`, or None: audio goes on alone.
          audio_bmd: [b, m, d] from `encode`, or None: video goes on alone.
          train: use drop path.
          rngs: stream "dropout".

        Returns:
          {"logits": {label set: [b, y]}, "tokens": {modality: [b, n, d]}, "pooled": {modality:
          [b, d]}}, without the entries of a modality not given; tokens are those after the final
          norm. A "token" classifier adds {"modality_logits": {modality: {label set: [b, y]}}},
          whose mean the logits are.

        Raises:
          ValueError: neither modality is given.
        """
        if video_bnd is None and audio_bmd is None:
            raise ValueError("fuse needs the tokens of at least one modality, got None and None")
        video_bnd, audio_bmd = self.fusion(video_bnd, audio_bmd, train=train, rngs=rngs)
        with scopes.part(scopes.HEADS):
            return self._heads({"audio": audio_bmd, "video": video_bnd})

    def _heads(self, fused: Mapping[str, Tokens]) -> dict[str, Any]:
        tokens = {name: self.norm(x) for name, x in fused.items() if x is not None}
        if self.config.classifier == "gap":
            pooled = {name: x.mean(1) for name, x in tokens.items()}
            every = jnp.concatenate(list(tokens.values()), 1).mean(1)
            return {"logits": self._classify(every), "tokens": tokens, "pooled": pooled}
        pooled = {name: x[:, 0] for name, x in tokens.items()}
        per_modality = {name: self._classify(x) for name, x in pooled.items()}
        return {
            "logits": jax.tree.map(lambda *all: sum(all) / len(all), *per_modality.values()),
            "modality_logits": per_modality,
            "tokens": tokens,
            "pooled": pooled,
        }

    def __call__(self, video_bthwc: jax.Array | None, audio_bsf: jax.Array | None) -> jax.Array:
        """Evaluation: input as `encode` takes it to logits [b, y] of a model with one label set."""
        logits = self.fuse(*self.encode(video_bthwc, audio_bsf))["logits"]
        (only,) = logits.values()
        return only

    def _classify(self, features_bd: jax.Array) -> dict[str, jax.Array]:
        return {name: head(features_bd) for name, head in self.heads.items()}

    def _blocks(self, name: str) -> Blocks:
        tower = getattr(self, name)
        return tower.blocks if hasattr(tower, "blocks") else self.video.blocks

    def _options(
        self, train: bool, rngs: nnx.Rngs | None, *, span: tuple[int, int]
    ) -> dict[str, Any]:
        return dict(train=train, rngs=rngs, remat=self.config.remat, span=span)

    def _through_bottleneck(self, x: _ByName, train: bool, options: dict[str, Any]) -> _ByName:
        exchange = train or self.config.test_with_bottlenecks
        if not exchange or not hasattr(self, "bottleneck"):
            return {name: run_tower(self._blocks(name), t, **options) for name, t in x.items()}
        some = next(iter(x.values()))
        shape = (some.shape[0], *self.bottleneck.shape[1:])
        bottleneck = jnp.broadcast_to(self.bottleneck[...].astype(some.dtype), shape)

        names = tuple(x)  # not the order of a dictionary: JAX sorts it

        def layer(calls: list[Call], carry: tuple[_ByName, jax.Array]) -> tuple[_ByName, jax.Array]:
            x, bottleneck = carry
            after, copies = {}, []
            for call, name in zip(calls, names, strict=True):
                joint = call(jnp.concatenate([x[name], bottleneck], 1))
                after[name] = joint[:, : x[name].shape[1]]
                copies.append(joint[:, x[name].shape[1] :])
            return after, sum(copies[1:], copies[0]) / len(copies)

        towers = [self._blocks(name) for name in names]
        x, _ = run_towers(layer, towers, (x, bottleneck), **options)
        return x

    def _merged(self, x: _ByName, train: bool, options: dict[str, Any]) -> _ByName:
        del train
        return self._joint(x, options) if self.config.share_encoder else self._both(x, options)

    def _joint(self, x: _ByName, options: dict[str, Any]) -> _ByName:
        joint = jnp.concatenate(list(x.values()), 1)
        joint = run_tower(self._blocks(next(iter(x))), joint, **options)
        ends = [tokens.shape[1] for tokens in x.values()][:-1]
        return dict(zip(x, jnp.split(joint, ends, axis=1), strict=True))

    def _both(self, x: _ByName, options: dict[str, Any]) -> _ByName:
        names = tuple(x)

        def layer(calls: list[Call], x: _ByName) -> _ByName:
            after = {}
            for call, name in zip(calls, names, strict=True):
                others = [x[other] for other in names if other != name]
                joint = call(jnp.concatenate([*others, x[name]], 1))
                after[name] = joint[:, joint.shape[1] - x[name].shape[1] :]
            return after

        return run_towers(layer, [self._blocks(name) for name in names], x, **options)


# The fusions of `models.fusions` that MBT has, in its own way: within its towers' blocks.
_FUSIONS: dict[str, Callable[..., _ByName]] = {
    "bottleneck": MBT._through_bottleneck,
    "merged": MBT._merged,
}
