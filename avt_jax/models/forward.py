"""From a raw batch to everything a loss or a prediction may ask of the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from avt_jax import axes, tree
from avt_jax.models.partners import interleaved, take_clips
from avt_jax.models.preprocess import normalise_video, standardise_audio
from avt_jax.tree.micro_batches import per_pair
from avt_jax.tree.rngs import CountedRngs


@dataclass(frozen=True)
class Normalisation:
    """Constants that turn raw input into model input.

    Attributes:
      video_mean: per RGB channel, on the [0, 1] scale.
      video_std: per RGB channel.
      audio_mean: of the log-mel over the data set.
      audio_std: of the log-mel over the data set; the model sees (x - mean) / (2 std), as AST does.
      is_tokens: the input is cached tokens, which stay as they are.
    """

    video_mean: tuple[float, float, float]
    video_std: tuple[float, float, float]
    audio_mean: float
    audio_std: float
    is_tokens: bool = False


_MODALITIES = (axes.VIDEO, axes.AUDIO)

# Chooses what is hidden of a modality: (batch, PRNG key) -> (masked [b, tokens], fallback [b]).
Hide = Callable[[Mapping[str, Any], jax.Array], tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Reconstruction:
    """What was hidden of a modality, and what the model makes of it.

    Attributes:
      predicted_bmp: [b, m, p] float32, normalised within each patch.
      target_bmp: [b, m, p] the patches' content, not normalised.
      masked_bm: [b, m] bool, True = hidden.
      fallback_b: [b] bool, True where the strategy had nothing to choose from.
    """

    predicted_bmp: jax.Array
    target_bmp: jax.Array
    masked_bm: jax.Array
    fallback_b: jax.Array


class Forward:
    """A model's work on one batch, each part computed when first asked for.

    What nobody asks for is never traced: an objective without the contrastive term costs no
    projection.

    Args:
      model: an AVT or anything with its `encode`, `fuse` and what the objective asks for.
      batch: see `avt_jax.axes`.
      normalisation: constants for raw input.
      train: use dropout, drop path and batch statistics.
      key: PRNG key for them and for what is hidden; needed only when `train` or hiding.
      hide: {modality: how to choose what is hidden}.
      shared_pass: classify what is left after hiding, instead of the whole clip; one pass less.
    """

    def __init__(
        self,
        model: Any,
        batch: Mapping[str, Any],
        normalisation: Normalisation,
        *,
        train: bool,
        key: jax.Array | None = None,
        hide: Mapping[str, Hide] | None = None,
        shared_pass: bool = False,
    ):
        self._model = model
        self._batch = batch
        self._normalisation = normalisation
        if train and key is None:
            raise ValueError("training needs a key")
        rngs = None if key is None or not train else CountedRngs(key)
        self._options: dict[str, Any] = dict(train=train, rngs=rngs)
        self._key = key
        self._hide = {} if hide is None else dict(hide)
        self._hidden: dict[str, tuple[jax.Array, jax.Array]] = {}
        self._shared_pass = shared_pass

    @cached_property
    def inputs(self) -> dict[str, jax.Array]:
        """{modality: normalised input of the model}."""
        constants = self._normalisation
        if constants.is_tokens:
            has = {name: hasattr(self._model, f"{name}_encoder") for name in _MODALITIES}
            return {name: self._batch[name] for name in _MODALITIES if has[name]}
        inputs: dict[str, jax.Array] = {}
        if self._model.modalities != "audio":
            inputs["video"] = normalise_video(
                self._batch[axes.VIDEO], constants.video_mean, constants.video_std
            )
        if self._model.modalities != "video":
            inputs["audio"] = standardise_audio(
                self._batch[axes.AUDIO], constants.audio_mean, constants.audio_std
            )
        return inputs

    def gumbel(self, use: int) -> jax.Array:
        """Standard Gumbel noise [b, b] from the key of one use: float32, for each pair of clips."""
        key, length = self.key(use), len(self._batch[axes.VALID])
        return per_pair(lambda clips: jax.random.gumbel(key, (clips, clips)), length)

    def key(self, use: int) -> jax.Array:
        """A PRNG key of this batch for one use; 0 and 1 are what is hidden, 2 and 3 matching.

        Micro-batches of one batch share it.
        """
        if self._key is None:
            raise ValueError("hiding and mining need a key")
        # Beyond any count that the dropout stream reaches.
        return jax.random.fold_in(self._key, 2**31 + use)

    def hidden(self, name: str) -> tuple[jax.Array, jax.Array]:
        """(masked [b, tokens], fallback [b]): what is hidden of "audio" or "video"."""
        if name not in self._hidden:
            use = sorted(("audio", "video")).index(name)
            self._hidden[name] = self._hide[name](self._batch, self.key(use))
        return self._hidden[name]

    @cached_property
    def tokens(self) -> tuple[jax.Array | None, jax.Array | None]:
        """(video [b, n, d], audio [b, m, d]) before fusion; None for a modality switched off."""
        masked = {name: self.hidden(name)[0] for name in self._hide} if self._shared_pass else None
        return self._encode(self.inputs, masked)

    def _encode(
        self, inputs: Mapping[str, jax.Array], masked: Mapping[str, jax.Array] | None
    ) -> tuple[jax.Array | None, jax.Array | None]:
        video, audio = inputs.get("video"), inputs.get("audio")
        if masked is None:  # a model without decoders need not know of masks
            return self._model.encode(video, audio, **self._options)
        return self._model.encode(video, audio, masked=masked, **self._options)

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """What `fuse` gives: logits per label set, fused tokens, pooled features."""
        return self._model.fuse(*self.tokens, **self._options)

    @property
    def logits(self) -> dict[str, jax.Array]:
        """{label set: [b, y]}."""
        return self.outputs["logits"]

    @property
    def modality_logits(self) -> list[dict[str, jax.Array]]:
        """Logits of each modality by itself; empty for a model that only has joint ones."""
        return list(self.outputs.get("modality_logits", {}).values())

    @cached_property
    def embeddings(self) -> tuple[jax.Array, jax.Array]:
        """(video, audio) [b, d] L2-normalised projections of the tokens before fusion."""
        return self._model.project(*self.tokens)

    @property
    def log_temperature(self) -> jax.Array:
        """Scalar: log of the contrastive temperature."""
        return self._model.contrastive_log_tau[...]

    @property
    def contrastive_bias(self) -> jax.Array:
        """Scalar: bias of the contrastive logits, for the sigmoid form."""
        return self._model.contrastive_bias[...]

    @property
    def match_logits(self) -> jax.Array:
        """[b]: whether each clip's sound and picture belong together."""
        return self._model.match(self.outputs["pooled"])

    def mismatch_logits(
        self, audio_index_b: jax.Array, video_index_b: jax.Array, group_size: int = 0
    ) -> tuple[jax.Array, jax.Array]:
        """The same for mismatched pairs; only the fusion runs again.

        Args:
          audio_index_b: [b] int32, the clip whose audio each video gets.
          video_index_b: [b] int32, the clip whose video each audio gets.
          group_size: both are of the clip's own group of so many; 0 = of the whole batch.

        Returns:
          ([b] logits with other audio, [b] logits with other video).
        """
        video, audio = self.tokens
        if video is None or audio is None:
            raise ValueError("pairs need both modalities")
        pooled = self._model.fuse(
            interleaved(video, take_clips(video, video_index_b, group_size)),
            interleaved(take_clips(audio, audio_index_b, group_size), audio),
            **self._options,
        )["pooled"]
        logits_b2 = self._model.match(pooled).reshape(-1, 2)
        return logits_b2[:, 0], logits_b2[:, 1]

    def reconstruction(self, name: str) -> Reconstruction:
        """Hides part of a modality and reconstructs it from the fused tokens of both.

        Args:
          name: "audio" or "video".
        """
        masked_bm, fallback_b = self.hidden(name)
        fused = self.outputs if self._shared_pass else self._fuse_with_hidden(name, masked_bm)
        return Reconstruction(
            self._model.reconstruct(name, fused["tokens"], **self._options),
            jax.lax.stop_gradient(self._model.patches(name, self.inputs[name])),
            masked_bm,
            fallback_b,
        )

    def _fuse_with_hidden(self, name: str, masked_bm: jax.Array) -> dict[str, Any]:
        tokens = dict(zip(("video", "audio"), self.tokens, strict=True))
        # Running statistics are those of whole clips: what this pass adds to them is taken back.
        statistics = [
            (variable, variable.get_value())
            for _, variable in nnx.iter_graph(self._model)
            if isinstance(variable, nnx.BatchStat)
        ]
        video, audio = self._encode({name: self.inputs[name]}, {name: masked_bm})
        for variable, value in statistics:
            variable.set_value(value)
        tokens[name] = {"video": video, "audio": audio}[name]
        return self._model.fuse(tokens["video"], tokens["audio"], **self._options)


Predict = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], dict[str, jax.Array]]


def make_predict(
    skeleton: tree.Skeleton[nnx.Module],
    normalisation: Normalisation,
    multi_label: Collection[str] = (),
) -> Predict:
    """Builds the pure function (params, stats, batch) -> {label set: probabilities [b, y]}.

    Those of a clip add up to 1; of the sets `multi_label` each class has a probability of its own.
    """

    def predict(
        params: Mapping[str, Any], stats: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> dict[str, jax.Array]:
        forward = Forward(skeleton.merge(params, stats), batch, normalisation, train=False)
        return {
            name: jax.nn.sigmoid(logits_by.astype("float32"))
            if name in multi_label
            else jax.nn.softmax(logits_by.astype("float32"), axis=-1)
            for name, logits_by in forward.logits.items()
        }

    return predict


def make_embed(skeleton: tree.Skeleton[nnx.Module], normalisation: Normalisation) -> Predict:
    """Builds the pure function (params, stats, batch) -> {name: [b, d] float32 of length 1}.

    Names are the model's modalities and, where it has both, "fused". A modality's vector is what
    the contrastive term compares where the model has its projections; else what the classifier sees
    of it, its tokens after fusion, pooled. "fused" is the latter of video, then of audio, in one.
    """

    def unit(vector_bd: jax.Array) -> jax.Array:
        vector_bd = vector_bd.astype(jnp.float32)
        norm_b1 = jnp.linalg.norm(vector_bd, axis=-1, keepdims=True)
        return vector_bd / jnp.maximum(norm_b1, 1e-12)

    def embed(
        params: Mapping[str, Any], stats: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> dict[str, jax.Array]:
        model: Any = skeleton.merge(params, stats)
        forward = Forward(model, batch, normalisation, train=False)
        pooled = forward.outputs["pooled"]
        found = dict(pooled)
        if model.projects:
            found["video"], found["audio"] = forward.embeddings
        if len(pooled) == 2:
            found["fused"] = jnp.concatenate([unit(pooled[n]) for n in ("video", "audio")], -1)
        return {name: unit(vector_bd) for name, vector_bd in found.items()}

    return embed


def make_tokens(skeleton: tree.Skeleton[nnx.Module], normalisation: Normalisation) -> Predict:
    """Builds the pure function (params, stats, batch) -> {modality: [b, n, d]}.

    These are the encoders' tokens before the projection to the fusion's width, of an AVT.
    """

    def encode(
        params: Mapping[str, Any], stats: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> dict[str, jax.Array]:
        model: Any = skeleton.merge(params, stats)
        inputs = Forward(model, batch, normalisation, train=False).inputs
        return {
            name: getattr(model, f"{name}_encoder").tokens(value) for name, value in inputs.items()
        }

    return encode


def make_reconstruct(
    skeleton: tree.Skeleton[nnx.Module], normalisation: Normalisation, hide: Mapping[str, Hide]
) -> Callable[..., dict[str, dict[str, jax.Array]]]:
    """Builds the pure function (params, stats, batch, key) -> what was hidden and its prediction.

    Args:
      skeleton: a model with a decoder for every modality in `hide`.
      normalisation: constants for raw input.
      hide: {modality: how to choose what is hidden}.

    Returns:
      The function; it gives {modality: {"original": the normalised input, "predicted", "target":
      [b, n, p], "masked": [b, n]}}.
    """

    def reconstruct(
        params: Mapping[str, Any],
        stats: Mapping[str, Any],
        batch: Mapping[str, Any],
        key: jax.Array,
    ) -> dict[str, dict[str, jax.Array]]:
        model = skeleton.merge(params, stats)
        forward = Forward(model, batch, normalisation, train=False, key=key, hide=hide)
        return {
            name: {
                "original": forward.inputs[name],
                "predicted": found.predicted_bmp,
                "target": found.target_bmp,
                "masked": found.masked_bm,
            }
            for name in hide
            for found in (forward.reconstruction(name),)
        }

    return reconstruct
