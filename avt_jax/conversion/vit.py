"""ViT's augreg weights, and the Flax names that MBT shares with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from avt_jax.conversion.hints import Hints
from avt_jax.conversion.mapping import (
    Rule,
    Shapes,
    Variables,
    block_count,
    first_axis,
    ratio,
    token_count,
    vector,
)
from avt_jax.conversion.store import Converted
from avt_jax.errors import UserError
from avt_jax.models.encoders.vit import ViT, ViTConfig
from avt_jax.models.mbt import Tower
from avt_jax.models.posemb import resize_vit_grid
from avt_jax.tree.rngs import CountedRngs

FITS = (ViT, Tower)
TOLD = ("num_heads",)
MODEL_TYPE = ""
_NO_HINTS = Hints()

_POSITIONS = "Transformer/posembed_input/pos_embedding"


def infer(state_dict: Mapping[str, np.ndarray], hints: Hints = _NO_HINTS) -> ViTConfig:
    """The config that official weights are of.

    Raises:
      KeyError: a name that all ViTs have is missing.
    """
    del hints
    return ViTConfig(**tower_fields(state_dict))


def tower_fields(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Sizes of a ViT tower under Flax names, as keyword arguments of its config."""
    kernel = np.shape(state_dict["embedding/kernel"])
    block = "Transformer/encoderblock_0/"
    found = {
        name.removeprefix(block): array
        for name, array in state_dict.items()
        if name.startswith(block)
    }
    query = next((v for k, v in found.items() if k.endswith("/query/kernel")), None)
    hidden = next((v for k, v in found.items() if k.endswith("/Dense_0/bias")), None)
    if query is None or hidden is None or np.ndim(query) != 3:
        raise KeyError(f"{block}.../query/kernel")
    return dict(
        dim=len(query),
        depth=block_count(state_dict, r"Transformer/encoderblock_(\d+)/"),
        num_heads=np.shape(query)[1],
        mlp_ratio=ratio(len(hidden), len(query)),
        patch_px=kernel[-4],
        tubelet_frames=kernel[0] if len(kernel) == 5 else 1,
    )


def grid(config: ViTConfig, state_dict: Mapping[str, np.ndarray], mel_bins: int) -> tuple[int, ...]:
    """Patches along (time, rows, columns) that the positions are for; () where it is not known.

    Raises:
      UserError: the positions of an image model are not those of a square.
    """
    del config, mel_bins
    if np.ndim(state_dict["embedding/kernel"]) == 5:
        return ()
    patches = (token_count(state_dict, _POSITIONS) or 0) - 1
    side = math.isqrt(max(patches, 0))
    if not side or side * side != patches:
        raise UserError(f"{patches} positions are not those of a square image, as ViT's are.")
    return 1, side, side


def build(config: ViTConfig, state_dict: Mapping[str, np.ndarray], dtype: DTypeLike) -> ViT:
    """The model that the weights are of; without a head where they have none."""
    # Only the number of positions matters to the model: that many frames of one patch each.
    patches = max((token_count(state_dict, _POSITIONS) or 0) - 1, 1)
    return ViT(
        config,
        num_frames=config.tubelet_frames * patches,
        frame_size_px=config.patch_px,
        num_classes=None if _has_pre_logits(state_dict) else first_axis(state_dict, "head/bias"),
        dtype=jnp.dtype(dtype),
        rngs=CountedRngs(0),
    )


def rules(config: ViTConfig, state_dict: Mapping[str, np.ndarray]) -> list[Rule]:
    """Flax name to path."""
    patch = (config.tubelet_frames, config.patch_px, config.patch_px)
    head = [Rule(r"head/kernel", "head.kernel"), Rule(r"head/bias", "head.bias", vector)]
    if _has_pre_logits(state_dict):
        # A hidden layer before the head, which only ImageNet-21k's classes have any use for.
        head = [Rule(r"(pre_logits|head)/(kernel|bias)", None)]
    return [
        Rule(r"cls", "embed.cls_token"),
        Rule(_POSITIONS, "embed.pos_embed"),
        *embedding_rules("embedding", "embed", patch),
        *block_rules(r"Transformer/encoderblock_(\d+)", r"blocks.\1"),
        *norm_rules("Transformer/encoder_norm", "norm"),
        *head,
    ]


def _has_pre_logits(state_dict: Mapping[str, np.ndarray]) -> bool:
    return any(name.startswith("pre_logits/") for name in state_dict)


def adapt(
    found: Variables, converted: Converted, shapes: Shapes, grid: tuple[int, ...]
) -> list[str]:
    """Patches inflated in time, positions interpolated to another (time, rows, columns) grid."""
    said = []
    kernel, rows = found["embed/proj/kernel"], shapes["embed/proj/kernel"][0]
    if converted.config["tubelet_frames"] == 1 and rows != len(kernel) and not rows % len(kernel):
        frames = rows // len(kernel)
        central = np.zeros((frames, *kernel.shape), kernel.dtype)
        central[frames // 2] = kernel
        found["embed/proj/kernel"] = central.reshape(rows, -1)
        said.append(f"patches inflated to {frames} frames")
    cls, patches = np.split(found["embed/pos_embed"][0], [1])
    old = tuple(converted.grid)
    if old and old != grid:
        (old_frames, *old_side), (frames, *side) = old, grid
        of_frames = [
            resize_vit_grid(one, _pair(old_side), _pair(side))
            for one in np.split(patches, old_frames)
        ]
        patches = np.concatenate(_in_time(of_frames, frames))
        said.append(f"positions adapted from {old} to {grid} (time, rows, columns)")
    if "embed/cls_token" not in shapes:
        del found["embed/cls_token"]
        cls = cls[:0]
        said.append("class token left out")
    found["embed/pos_embed"] = np.concatenate([cls, patches])[None]
    return said


def _in_time(of_frames: Sequence[np.ndarray], frames: int) -> list[np.ndarray]:
    """Positions of frames at another number of frames: between the two nearest; one is repeated."""
    # The middle of each new frame, counted in old ones.
    at = (np.arange(frames) + 0.5) * len(of_frames) / frames - 0.5
    at = np.clip(at, 0, len(of_frames) - 1)
    return [
        (1 - share) * of_frames[int(place)]
        + share * of_frames[min(int(place) + 1, len(of_frames) - 1)]
        if (share := np.float32(place - int(place)))
        else of_frames[int(place)]
        for place in at
    ]


def _pair(sides: Sequence[int]) -> tuple[int, int]:
    rows, columns = sides
    return rows, columns


def norm_rules(source: str, target: str) -> list[Rule]:
    """LayerNorm of Flax: scale and bias."""
    return [Rule(f"{source}/{leaf}", f"{target}.{leaf}", vector) for leaf in ("scale", "bias")]


def embedding_rules(source: str, target: str, patch: tuple[int, int, int]) -> list[Rule]:
    """A convolution whose stride is its kernel, to a product with flattened patches.

    Args:
      source: regular expression of the module's name.
      target: path template of `PatchTokens`.
      patch: (frames, height, width) that the target's patches have.
    """
    return [
        Rule(f"{source}/kernel", f"{target}.proj.kernel", partial(patch_kernel, patch=patch)),
        Rule(f"{source}/bias", f"{target}.proj.bias", vector),
    ]


def block_rules(source: str, target: str) -> list[Rule]:
    """A pre-norm transformer block of ViT in Flax.

    Sub-modules are numbered by kind in MBT (LayerNorm_0, LayerNorm_1) and by position in ViT
    (LayerNorm_0, LayerNorm_2); the names below take both.
    """
    attention = rf"{source}/MultiHeadDotProductAttention_\d"
    qkv = [
        rule
        for i, name in enumerate(("query", "key", "value"))
        for rule in (
            Rule(f"{attention}/{name}/kernel", f"{target}.attn.qkv.kernel", heads_out, (i, 3)),
            Rule(f"{attention}/{name}/bias", f"{target}.attn.qkv.bias", np.ravel, (i, 3)),
        )
    ]
    mlp = [
        rule
        for number, ours in (("0", "fc1"), ("1", "fc2"))
        for rule in (
            Rule(rf"{source}/MlpBlock_\d/Dense_{number}/kernel", f"{target}.mlp.{ours}.kernel"),
            Rule(rf"{source}/MlpBlock_\d/Dense_{number}/bias", f"{target}.mlp.{ours}.bias"),
        )
    ]
    return [
        *norm_rules(f"{source}/LayerNorm_0", f"{target}.norm1"),
        *norm_rules(f"{source}/LayerNorm_[12]", f"{target}.norm2"),
        *qkv,
        Rule(f"{attention}/out/kernel", f"{target}.attn.proj.kernel", heads_in),
        Rule(f"{attention}/out/bias", f"{target}.attn.proj.bias", vector),
        *mlp,
    ]


def heads_out(array: np.ndarray) -> np.ndarray:
    """[d, heads, head width] to [d, d]."""
    if array.ndim != 3:
        raise ValueError(f"expected [d, heads, head width], got {array.shape}")
    return array.reshape(array.shape[0], -1)


def heads_in(array: np.ndarray) -> np.ndarray:
    """[heads, head width, d] to [d, d]."""
    if array.ndim != 3:
        raise ValueError(f"expected [heads, head width, d], got {array.shape}")
    return array.reshape(-1, array.shape[-1])


def patch_kernel(array: np.ndarray, *, patch: tuple[int, int, int]) -> np.ndarray:
    """[(t,) h, w, 3, d] to [t h w 3, d]; a 2-D kernel looks at the central frame of a tubelet.

    Source: ViViT's central-frame initialisation (arXiv:2103.15691, sec. 3.4), as in MBT.
    """
    if array.ndim == 4:
        frames = np.zeros((patch[0], *array.shape), array.dtype)
        frames[patch[0] // 2] = array
        array = frames
    if array.ndim != 5 or array.shape[:4] != (*patch, 3):
        raise ValueError(f"expected a kernel of {patch} over RGB, got {array.shape}")
    return array.reshape(math.prod(array.shape[:4]), array.shape[4])
