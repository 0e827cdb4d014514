"""AST's weights: the authors' files, DeiT's for ImageNet, and Hugging Face's names for both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from avt_jax.conversion.hints import Hints
from avt_jax.conversion.mapping import (
    Rule,
    Shapes,
    Variables,
    block_count,
    dense_rules,
    first_axis,
    norm_rules,
    ratio,
    token_count,
)
from avt_jax.conversion.store import Converted
from avt_jax.errors import UserError
from avt_jax.models.encoders.ast import AST, ASTConfig, patch_grid
from avt_jax.models.posemb import adapt_ast_grid
from avt_jax.tree.rngs import CountedRngs

FITS = (AST,)
# What the shapes of arrays do not tell. Positions of pictures are for no stride.
TOLD = ("num_heads", "norm_eps", "stride")
MODEL_TYPE = "audio-spectrogram-transformer"

_PATCH = 16
_MEL_BINS = 128
_FRAMES = 1024  # of all released weights but those for Speech Commands
# Of the released weights, the most used first.
_STRIDES = (10, 16, 12, 14)
_NO_HINTS = Hints()
_QUERY_BIASES = (".attn.qkv.bias", ".attention.query.bias", ".q_proj.bias")
_POSITIONS = (
    "v.pos_embed",
    "pos_embed",
    "embeddings.position_embeddings",
    "audio_spectrogram_transformer.embeddings.position_embeddings",
)


def infer(state_dict: Mapping[str, np.ndarray], hints: Hints = _NO_HINTS) -> ASTConfig:
    """The config that official weights are of.

    What config.json does not say of heads, norm and stride is guessed: heads 64 wide and the norm
    of the authors, as in all released weights, and of the released strides the one that the
    positions are for.

    Raises:
      KeyError: a name that all ASTs have is missing.
      UserError: config.json says what cannot be.
    """
    dim = np.shape(_one(state_dict, ".cls_token"))[-1]
    hidden = len(_one(state_dict, ".0.mlp.fc1.weight", ".0.intermediate.dense.weight"))
    eps = hints.number("layer_norm_eps")
    config = ASTConfig(
        dim=dim,
        depth=block_count(state_dict, r".*(?:blocks|layers?)\.(\d+)\."),
        num_heads=hints.whole("num_attention_heads") or max(dim // 64, 1),
        mlp_ratio=ratio(hidden, dim),
        qkv_bias=any(name.endswith(_QUERY_BIASES) for name in state_dict),
    )
    if eps is not None:
        config = dataclasses.replace(config, norm_eps=eps)
    return dataclasses.replace(config, stride=_stride(state_dict, config, hints))


def mel_bins_of(hints: Hints) -> int:
    """The mel bins of the spectrograms that weights were trained on."""
    return hints.mel_bins or hints.whole("num_mel_bins") or _MEL_BINS


def _stride(
    state_dict: Mapping[str, np.ndarray], config: ASTConfig, hints: Hints
) -> int | tuple[int, int]:
    """The step of the patches: as config.json says, or guessed, which is said."""
    told = hints.whole("frequency_stride"), hints.whole("time_stride")
    if told[0] and told[1]:
        hints.say(f"stride {told[0]} (frequency) and {told[1]} (time), as config.json says")
        return told[0] if told[0] == told[1] else (told[0], told[1])
    patches = (token_count(state_dict, *_POSITIONS) or 0) - 2
    if _of_pictures(state_dict):
        hints.say("positions of a square picture: they are brought to any stride")
        return _PATCH
    bins = mel_bins_of(hints)
    grids = {
        stride: patch_grid(_FRAMES, bins, dataclasses.replace(config, stride=stride))
        for stride in _STRIDES
    }
    fits = [stride for stride, (rows, _) in grids.items() if rows > 0 and not patches % rows]
    whole = [stride for stride, grid in grids.items() if math.prod(grid) == patches]
    stride = next(iter(whole + fits), _STRIDES[0])
    others = [str(other) for other in fits if other != stride]
    hints.say(
        f"stride {stride} is a guess from {patches} positions"
        + (f", which would also be those of stride {' or '.join(others)}" if others else "")
        + "; --set stride=... says otherwise"
    )
    return stride


def _of_pictures(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether these are DeiT's own weights: its names have no prefix."""
    return "cls_token" in state_dict and "mlp_head.1.weight" not in state_dict


def _one(state_dict: Mapping[str, np.ndarray], *endings: str) -> np.ndarray:
    for name, array in state_dict.items():
        if f".{name}".endswith(endings):
            return array
    raise KeyError(endings[0].lstrip("."))


def grid(config: ASTConfig, state_dict: Mapping[str, np.ndarray], mel_bins: int) -> tuple[int, int]:
    """Patches along (frequency, time) that the positions are for.

    Raises:
      UserError: the number of positions does not fit the mel bins and strides.
    """
    patches = (token_count(state_dict, *_POSITIONS) or 0) - 2
    if _of_pictures(state_dict):
        side = math.isqrt(max(patches, 0))  # DeiT's own: a square picture
        if side and side * side == patches:
            return side, side
    rows = patch_grid(_PATCH, mel_bins, config)[0]
    if patches < rows or patches % rows:
        raise UserError(
            f"{patches} positions do not fill rows of {rows} patches, which {mel_bins} mel bins "
            f"make with stride {config.stride}; give --mel-bins or --set stride=... of the weights."
        )
    return rows, patches // rows


def on_spectrograms(converted: Converted) -> bool:
    """Whether the positions were learned on spectrograms, and not on DeiT's square pictures."""
    rows, columns = converted.grid
    config = ASTConfig(stride=converted.config["stride"])
    return rows != columns or rows == patch_grid(_PATCH, _MEL_BINS, config)[0]


def build(config: ASTConfig, state_dict: Mapping[str, np.ndarray], dtype: DTypeLike) -> AST:
    """The model that the weights are of; without a head where they have none."""
    # Only the number of positions matters to the model: one row of as many patches.
    columns = max((token_count(state_dict, *_POSITIONS) or 0) - 2, 1)
    return AST(
        config,
        mel_bins=_PATCH,
        num_frames=_PATCH + (columns - 1) * config.strides[1],
        num_classes=first_axis(state_dict, "mlp_head.1.weight", "classifier.dense.weight"),
        dtype=jnp.dtype(dtype),
        rngs=CountedRngs(0),
    )


def rules(config: ASTConfig, state_dict: Mapping[str, np.ndarray]) -> list[Rule]:
    """Official name to path, in the dialect of the names."""
    del config
    if any("embeddings.cls_token" in name for name in state_dict):
        return _hugging_face()
    return _official()


def _official() -> list[Rule]:
    v = r"(?:v\.)?"  # DeiT's own files have no prefix
    block = rf"{v}(blocks\.\d+)"
    return [
        Rule(rf"{v}(cls_token|dist_token|pos_embed)", r"\1"),
        Rule(rf"{v}patch_embed\.proj\.weight", "patch_embed.kernel", patch_kernel),
        Rule(rf"{v}patch_embed\.proj\.bias", "patch_embed.bias"),
        *norm_rules(rf"{block}\.(norm[12])", r"\1.\2"),
        *dense_rules(rf"{block}\.attn\.(qkv|proj)", r"\1.attn.\2"),
        *dense_rules(rf"{block}\.mlp\.(fc[12])", r"\1.mlp.\2"),
        *norm_rules(rf"{v}norm", "norm"),
        # DeiT's two ImageNet heads, which AST carries along and never calls.
        Rule(rf"{v}(head|head_dist)\.(weight|bias)", None),
        *norm_rules(r"mlp_head\.0", "head_norm"),
        *dense_rules(r"mlp_head\.1", "head"),
    ]


def _hugging_face() -> list[Rule]:
    # Files say encoder.layer.N.attention.attention.query; transformers 5 in memory says
    # layers.N.attention.q_proj. The model without a head has no prefix.
    v = r"(?:audio_spectrogram_transformer\.)?"
    block = rf"{v}(?:encoder\.layer|layers)\.(\d+)"
    one_of_three = [
        rule
        for i, (old, new) in enumerate((("query", "q"), ("key", "k"), ("value", "v")))
        for rule in dense_rules(
            rf"{block}\.attention\.(?:attention\.{old}|{new}_proj)", r"blocks.\1.attn.qkv", (i, 3)
        )
    ]
    return [
        Rule(rf"{v}embeddings\.cls_token", "cls_token"),
        Rule(rf"{v}embeddings\.distillation_token", "dist_token"),
        Rule(rf"{v}embeddings\.position_embeddings", "pos_embed"),
        Rule(
            rf"{v}embeddings\.patch_embeddings\.projection\.weight",
            "patch_embed.kernel",
            patch_kernel,
        ),
        Rule(rf"{v}embeddings\.patch_embeddings\.projection\.bias", "patch_embed.bias"),
        *one_of_three,
        *dense_rules(rf"{block}\.attention\.(?:output\.dense|o_proj)", r"blocks.\1.attn.proj"),
        *dense_rules(rf"{block}\.(?:intermediate\.dense|mlp\.fc1)", r"blocks.\1.mlp.fc1"),
        *dense_rules(rf"{block}\.(?:output\.dense|mlp\.fc2)", r"blocks.\1.mlp.fc2"),
        *norm_rules(rf"{block}\.layernorm_before", r"blocks.\1.norm1"),
        *norm_rules(rf"{block}\.layernorm_after", r"blocks.\1.norm2"),
        *norm_rules(rf"{v}layernorm", "norm"),
        *norm_rules(r"classifier\.layernorm", "head_norm"),
        *dense_rules(r"classifier\.dense", "head"),
    ]


def adapt(
    found: Variables, converted: Converted, shapes: Shapes, grid: tuple[int, ...]
) -> list[str]:
    """Positions cut or interpolated to another (frequency, time) grid."""
    del shapes
    (old_rows, old_columns), (rows, columns) = converted.grid, grid
    old, new = (old_rows, old_columns), (rows, columns)
    if old == new:
        return []
    tokens, patches = np.split(found["pos_embed"][0], [2])
    found["pos_embed"] = np.concatenate([tokens, adapt_ast_grid(patches, old, new)])[None]
    return [f"positions adapted from {old} to {new} (frequency, time)"]


def patch_kernel(array: np.ndarray) -> np.ndarray:
    """[d, 1 or 3, h, w] to [h, w, 1, d]; RGB is summed, as AST does with DeiT's kernel."""
    if array.ndim != 4:
        raise ValueError(f"expected [d, channels, h, w], got {array.shape}")
    return array.sum(1, keepdims=True).transpose(2, 3, 1, 0)
