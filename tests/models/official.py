"""Loads the state dicts of the golden files into our modules, by name, for parity tests."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np
from flax import nnx

from avt_jax import tree

_GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
_LEAF = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
# Official prefix to ours; UniFormer's module names are ours already.
_PREFIXES = (
    (r"^v\.patch_embed\.proj\.", "patch_embed."),
    (r"^v\.", ""),
    (r"^mlp_head\.0\.", "head_norm."),
    (r"^mlp_head\.1\.", "head."),
)


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of a golden file."""
    with np.load(_GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names start with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def path_of(name: str, ndim: int) -> str:
    """Our path of an official parameter: "blocks1.0.norm1.weight" to "blocks1/0/norm1/scale"."""
    for pattern, ours in _PREFIXES:
        name = re.sub(pattern, ours, name)
    module, _, leaf = name.rpartition(".")
    if leaf == "weight":
        leaf = "scale" if ndim == 1 else "kernel"
    else:
        leaf = _LEAF.get(leaf, leaf)
    return "/".join([*module.split("."), leaf] if module else [leaf])


def value_of(weight: np.ndarray, shape: tuple[int, ...], leaf: str) -> np.ndarray:
    """An official array in our layout: output channels last, input channels before them."""
    if leaf == "kernel":
        # [out, in, *kernel] to [*kernel, in, out]; kernels of size 1 and groups of 1 then vanish.
        weight = weight.transpose(*range(2, weight.ndim), 1, 0)
    return weight.reshape(shape)


def load(
    build: Callable[[], nnx.Module], state_dict: Mapping[str, np.ndarray], dtype=np.float32
) -> tuple[tree.Skeleton, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(skeleton, parameters, statistics) of a model with official weights; `merge` is strict."""
    skeleton = tree.Skeleton(build)
    found = {}
    for name, weight in state_dict.items():
        path = path_of(name, weight.ndim)
        want = skeleton.params.get(path, skeleton.stats.get(path))
        found[path] = value_of(weight.astype(dtype), want.shape, path.rsplit("/", 1)[-1])
    tree.strict_match([*skeleton.params, *skeleton.stats], found, what="official weights")
    params = {path: found[path] for path in skeleton.params}
    return skeleton, params, {path: found[path] for path in skeleton.stats}
