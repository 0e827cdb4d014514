"""From a config block to a model: the names a config may use, and what they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx

from avt_jax.errors import UserError, nearest
from avt_jax.models import ast, uniformer
from avt_jax.models.avt import AVT, AVTConfig


@dataclass(frozen=True)
class InputSpec:
    """The shape of what the model reads.

    Attributes:
      num_frames: video frames of a clip.
      frame_size_px: height and width of a frame.
      fbank_frames: spectrogram frames of a clip.
      mel_bins: mel bins of the spectrogram.
    """

    num_frames: int
    frame_size_px: int
    fbank_frames: int
    mel_bins: int


def _uniformer(config, spec: InputSpec, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
    if spec.frame_size_px < 32:
        raise UserError(
            f"config.data.frame_size_px is {spec.frame_size_px}; UniFormer needs 32 or more."
        )
    return uniformer.UniFormer(config, dtype=dtype, rngs=rngs)


def _ast(config, spec: InputSpec, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
    if spec.fbank_frames < 16:
        raise UserError(
            f"config.data.clip_sec gives {spec.fbank_frames} spectrogram frames; AST needs 16 or "
            "more (0.16 s)."
        )
    return ast.AST(
        config, num_frames=spec.fbank_frames, mel_bins=spec.mel_bins, dtype=dtype, rngs=rngs
    )


# name -> (variants of its config, builder). A new encoder is one line here.
VIDEO_ENCODERS = {"uniformer": (uniformer.VARIANTS, _uniformer)}
AUDIO_ENCODERS = {"ast": (ast.VARIANTS, _ast)}


def _pick(where: str, name: Any, choices: Mapping[str, Any]) -> Any:
    if name not in choices:
        raise UserError(
            f"{where} is {name!r}{nearest(str(name), choices)}; give one of {', '.join(choices)}."
        )
    return choices[name]


def _fill(where: str, fields: Mapping[str, Any], config_class: type, base: Any = None) -> Any:
    """Makes a config dataclass from a block; `base` supplies what the block leaves out."""
    names = [field.name for field in dataclasses.fields(config_class)]
    for name in fields:
        if name not in names:
            raise UserError(
                f"{where}.{name} is not a field{nearest(name, names)}; "
                f"the fields are {', '.join(names)}."
            )
    missing = [name for name in names if name not in fields] if base is None else []
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; see configs/common.py.")
    return config_class(**fields) if base is None else dataclasses.replace(base, **fields)


def _encoder(where: str, block: Mapping[str, Any], known: Mapping, spec, dtype, rngs):
    fields = dict(block)
    variants, build = _pick(f"{where}.name", fields.pop("name", None), known)
    base = _pick(f"{where}.variant", fields.pop("variant", None), variants)
    return build(_fill(where, fields, type(base), base), spec, dtype, rngs)


def _avt(block: Mapping[str, Any], num_classes, spec: InputSpec, rngs: nnx.Rngs) -> AVT:
    fields = dict(block)
    video, audio = (fields.pop(name, None) for name in ("video_encoder", "audio_encoder"))
    config = _fill("config.model", fields, AVTConfig)
    encoders = {"video_encoder": None, "audio_encoder": None}
    if config.modalities != "audio":
        encoders["video_encoder"] = _encoder(
            "config.model.video_encoder", video, VIDEO_ENCODERS, spec, config.dtype, rngs
        )
    if config.modalities != "video":
        encoders["audio_encoder"] = _encoder(
            "config.model.audio_encoder", audio, AUDIO_ENCODERS, spec, config.dtype, rngs
        )
    return AVT(config, num_classes=num_classes, **encoders, rngs=rngs)


# name -> builder. A new model is one line here.
MODELS = {"avt": _avt}


def build_model(
    block: Mapping[str, Any],
    *,
    num_classes: Mapping[str, int],
    input: InputSpec,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Builds the model that a config describes.

    Args:
      block: the config block `model`.
      num_classes: {label set: number of classes}.
      input: the shape of what it reads.
      rngs: stream "params" for the initial weights.

    Returns:
      The model.

    Raises:
      UserError: an unknown name or field (the nearest valid one is named), or a bad value.
    """
    fields = dict(block)
    build = _pick("config.model.name", fields.pop("name", None), MODELS)
    return build(fields, num_classes, input, rngs)
