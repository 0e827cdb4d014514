"""UniFormer's official weights: 3-D (Kinetics) as they are, 2-D (ImageNet) inflated in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

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
    vector,
)
from avt_jax.conversion.store import Converted
from avt_jax.models.encoders.uniformer import UniFormer, UniFormerConfig
from avt_jax.tree.rngs import CountedRngs

FITS = (UniFormer,)
TOLD = ("head_dim", "split", "std")
MODEL_TYPE = ""
_NO_HINTS = Hints()


def infer(state_dict: Mapping[str, np.ndarray], hints: Hints = _NO_HINTS) -> UniFormerConfig:
    """The config that official weights are of; heads are taken to be 64 wide, as all released are.

    Raises:
      KeyError: a name that all UniFormers have is missing.
    """
    del hints
    dim = _by_stage(lambda stage: len(state_dict[f"patch_embed{stage}.proj.weight"]))
    second = np.shape(state_dict["patch_embed2.proj.weight"])
    return UniFormerConfig(
        depth=_by_stage(lambda stage: block_count(state_dict, rf"blocks{stage}\.(\d+)\.")),
        dim=dim,
        mlp_ratio=ratio(len(state_dict["blocks1.0.mlp.fc1.weight"]), dim[0]),
        qkv_bias="blocks3.0.attn.qkv.bias" in state_dict,
        split="blocks3.0.t_attn.qkv.weight" in state_dict,
        std=len(second) == 5 and second[2] == 3,
    )


def _by_stage(size: Callable[[int], int]) -> tuple[int, int, int, int]:
    return size(1), size(2), size(3), size(4)


def grid(
    config: UniFormerConfig, state_dict: Mapping[str, np.ndarray], mel_bins: int
) -> tuple[int, ...]:
    """UniFormer learns no positions: ()."""
    del config, state_dict, mel_bins
    return ()


def build(
    config: UniFormerConfig, state_dict: Mapping[str, np.ndarray], dtype: DTypeLike
) -> UniFormer:
    """The model that the weights are of; without a head where they have none."""
    return UniFormer(
        config,
        num_classes=first_axis(state_dict, "head.weight", "cls_head.fc_cls.weight"),
        dtype=jnp.dtype(dtype),
        rngs=CountedRngs(0),
    )


def rules(config: UniFormerConfig, state_dict: Mapping[str, np.ndarray]) -> list[Rule]:
    """Official name to path; ours are the official module names with slashes."""
    later = partial(patches, kernel=(3 if config.std else 1, 2, 2))
    local, whole = r"(blocks[12]\.\d+)", r"(blocks[34]\.\d+)"
    batch_norms = r"(blocks[12]\.\d+\.norm[12]|norm)"
    return [
        Rule(
            r"patch_embed1\.proj\.weight",
            "patch_embed1.proj.kernel",
            partial(patches, kernel=(3, 4, 4)),
        ),
        Rule(r"(patch_embed[234])\.proj\.weight", r"\1.proj.kernel", later),
        Rule(r"(patch_embed\d)\.proj\.bias", r"\1.proj.bias", vector),
        *norm_rules(r"(patch_embed\d\.norm)", r"\1"),
        Rule(
            r"(blocks\d\.\d+)\.pos_embed\.weight",
            r"\1.pos_embed.kernel",
            partial(depthwise, size=3),
        ),
        Rule(r"(blocks\d\.\d+)\.pos_embed\.bias", r"\1.pos_embed.bias", vector),
        Rule(rf"{local}\.attn\.weight", r"\1.attn.kernel", partial(depthwise, size=5)),
        Rule(rf"{local}\.attn\.bias", r"\1.attn.bias", vector),
        *dense_rules(rf"{local}\.(conv[12])", r"\1.\2"),
        *norm_rules(batch_norms, r"\1"),
        Rule(rf"{batch_norms}\.running_(mean|var)", r"\1.\2", vector),
        # How many batches the statistics have seen: the momentum does not depend on it.
        Rule(rf"{batch_norms}\.num_batches_tracked", None),
        *norm_rules(rf"{whole}\.(norm1|norm2|t_norm)", r"\1.\2"),
        *dense_rules(rf"{whole}\.(t_attn|attn)\.(qkv|proj)", r"\1.\2.\3"),
        *dense_rules(r"(blocks\d\.\d+)\.mlp\.(fc[12])", r"\1.mlp.\2"),
        # The second name is that of mmaction2, which has these weights, too.
        *dense_rules(r"(?:head|cls_head\.fc_cls)", "head"),
    ]


def adapt(
    found: Variables, converted: Converted, shapes: Shapes, grid: tuple[int, ...]
) -> list[str]:
    """UniFormer's weights are for any size of input: nothing is to be done."""
    del found, converted, shapes, grid
    return []


def inflate(array: np.ndarray, frames: int) -> np.ndarray:
    """[out, in, h, w] to [out, in, frames, h, w] with the same sum over time; 5-D stays."""
    if array.ndim == 5:
        return array
    if array.ndim != 4:
        raise ValueError(f"expected a 2-D or 3-D convolution, got {array.shape}")
    return np.repeat(array[:, :, None], frames, axis=2) / np.asarray(frames, array.dtype)


def patches(array: np.ndarray, *, kernel: tuple[int, int, int]) -> np.ndarray:
    """[out, in, t, h, w] to [t h w in, out]."""
    array = inflate(array, kernel[0])
    if array.shape[2:] != kernel:
        raise ValueError(f"expected a kernel of {kernel}, got {array.shape[2:]}")
    return array.transpose(2, 3, 4, 1, 0).reshape(-1, array.shape[0])


def depthwise(array: np.ndarray, *, size: int) -> np.ndarray:
    """[c, 1, t, h, w] to [t, h, w, c]."""
    array = inflate(array, size)
    if array.shape[1:] != (1, size, size, size):
        raise ValueError(f"expected a depthwise kernel of {size}^3, got {array.shape}")
    return array[:, 0].transpose(1, 2, 3, 0)
