"""Golden files of the original implementations, and their weights in our modules."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from avt_jax import conversion, tree
from avt_jax.conversion.mapping import place

_GOLDEN = pathlib.Path(__file__).parent / "golden"


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


def load(
    kind: str, config: Any, state_dict: Mapping[str, np.ndarray], dtype=np.float32
) -> tuple[tree.Skeleton, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(skeleton, parameters, statistics) of a model with official weights."""
    skeleton, found, _ = conversion.convert(kind, state_dict, config, dtype=dtype)
    params = {path: found[path] for path in skeleton.params}
    return skeleton, params, {path: found[path] for path in skeleton.stats}


def path_of(kind: str, config: Any, name: str) -> str | None:
    """Our path of an official name; None for one that is left out on purpose."""
    return place(conversion.KINDS[kind].rules(config, {name: None}), name)[1]


def augreg(mbt: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """MBT's video tower as an image ViT: other numbers in the names, a 2-D kernel, 4 positions."""
    found = {}
    for name, value in mbt.items():
        if "spectrogram" in name or name.startswith(("bottleneck", "output")):
            continue
        name = name.replace("LayerNorm_1", "LayerNorm_2").replace("MlpBlock_0", "MlpBlock_3")
        found[name.replace("Attention_0", "Attention_1")] = value
    found["embedding/kernel"] = found["embedding/kernel"][0]
    positions = "Transformer/posembed_input/pos_embedding"
    found[positions] = found[positions][:, :5]
    return found | {"head/kernel": np.ones((32, 6), np.float32), "head/bias": np.ones(6, "f4")}
