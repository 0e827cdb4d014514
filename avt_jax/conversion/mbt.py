"""MBT's weights as Scenic's Flax model names them."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from avt_jax.conversion.hints import Hints
from avt_jax.conversion.mapping import Rule, Shapes, Variables, first_axis, token_count, vector
from avt_jax.conversion.store import Converted
from avt_jax.conversion.vit import (
    block_rules,
    embedding_rules,
    norm_rules,
    tower_fields,
)
from avt_jax.models.mbt import MBT, MBTConfig
from avt_jax.tree.rngs import CountedRngs

FITS = ()
TOLD = ("num_heads", "fusion", "fusion_layer", "classifier")
MODEL_TYPE = ""
_NO_HINTS = Hints()
# A converted model has one label set, of this name.
LABEL_SET = "label"
_POSITIONS = "Transformer/posembed_input{}/pos_embedding"


def infer(state_dict: Mapping[str, np.ndarray], hints: Hints = _NO_HINTS) -> MBTConfig:
    """The config that official weights are of; the layer of the fusion is taken to be 8, or half.

    Raises:
      KeyError: a name that all MBTs have is missing.
    """
    del hints
    fields = tower_fields(state_dict)
    class_token = "cls" in state_dict
    bottleneck = token_count(state_dict, "bottleneck")
    both = "embedding_spectrogram/kernel" in state_dict
    return MBTConfig(
        **fields,
        modalities="av" if both else "video",
        fusion="bottleneck" if bottleneck or not both else "merged",
        num_bottleneck=max(bottleneck - class_token, 1) if bottleneck else 4,
        fusion_layer=8 if fields["depth"] >= 12 else fields["depth"] // 2,
        share_encoder=both and not any("encoderblock_0_spectrogram" in n for n in state_dict),
        classifier="token" if class_token else "gap",
    )


def grid(config: MBTConfig, state_dict: Mapping[str, np.ndarray], mel_bins: int) -> tuple[int, ...]:
    """A converted MBT is used as it is, for inputs of the size it was trained with: ()."""
    del config, state_dict, mel_bins
    return ()


def adapt(
    found: Variables, converted: Converted, shapes: Shapes, grid: tuple[int, ...]
) -> list[str]:
    """No module takes these weights, only a whole model: nothing is to be done."""
    del found, converted, shapes, grid
    return []


def build(config: MBTConfig, state_dict: Mapping[str, np.ndarray], dtype: DTypeLike) -> MBT:
    """The model that the weights are of."""
    classes = first_axis(state_dict, "output_projection/bias")
    class_token = config.classifier == "token"
    # Only the number of positions matters to the model: that many frames, or rows, of one patch.
    video, audio = (
        max((token_count(state_dict, _POSITIONS.format(suffix)) or 0) - class_token, 1)
        for suffix in ("", "_spectrogram")
    )
    return MBT(
        config,
        num_classes={} if classes is None else {LABEL_SET: classes},
        num_frames=config.tubelet_frames * video,
        frame_size_px=config.patch_px,
        fbank_frames=config.patch_px * audio,
        mel_bins=config.patch_px,
        dtype=jnp.dtype(dtype),
        rngs=CountedRngs(0),
    )


def rules(config: MBTConfig, state_dict: Mapping[str, np.ndarray]) -> list[Rule]:
    """Flax name to path; the original calls video rgb and gives it no suffix."""
    del state_dict
    table = [
        Rule(r"bottleneck", "bottleneck"),
        *norm_rules("Transformer/encoder_norm", "norm"),
        Rule(r"output_projection/kernel", f"heads.{LABEL_SET}.kernel"),
        Rule(r"output_projection/bias", f"heads.{LABEL_SET}.bias", vector),
    ]
    square = (config.patch_px, config.patch_px)
    for name, suffix, patch in (
        ("video", "", (config.tubelet_frames, *square)),
        ("audio", "_spectrogram", (1, *square)),
    ):
        table += [
            Rule(f"cls{suffix.removeprefix('_')}", f"{name}.embed.cls_token"),
            Rule(_POSITIONS.format(suffix), f"{name}.embed.pos_embed"),
            *embedding_rules(f"embedding{suffix}", f"{name}.embed", patch),
            *block_rules(rf"Transformer/encoderblock_(\d+){suffix}", rf"{name}.blocks.\1"),
        ]
    return table
