"""Low-rank adapters (LoRA) on the projections of attention: x W becomes x W + x A B alpha / rank.

W is not trained; A and B are, and are added to it when a model is exported. B starts at 0, so a
model starts as it would without adapters.

Source: Hu et al., arXiv:2106.09685, and the authors' loralib, whose start of A this is.

Flax has `nnx.LoRALinear` and `nnx.LoRA`. Neither is used: the first computes x W as `nnx.Linear`
does, without the gradients in the form of their platform that `layers.dense` has, and makes a layer
anew where a finished model has one; the second moves W to another path, where neither checkpoints
nor released weights would find it. Both leave the scale out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from avt_jax.errors import UserError, nearest
from avt_jax.models.layers import Attention, CrossAttention, add_bias, dense
from avt_jax.models.layers.norms import BatchNorm
from avt_jax.settings import Block, setting

_PROJECTIONS = ("q", "kv", "qkv", "proj")
_A, _B = "lora_a", "lora_b"
# Uniform within 1 / sqrt(fan in).
_INIT_A = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclass(frozen=True)
class LoRAConfig(Block, where="config.model"):
    """The fields of a model's block that speak of adapters."""

    lora_rank: int = setting(
        0,
        "rank of the adapters on attention's projections; 0 = none. What they sit in (see lora_on) "
        "is not trained but for them, and its BatchNorm keeps its statistics",
        at_least=0,
    )
    lora_alpha: float = setting(
        16.0,
        "the adapters' product counts lora_alpha / lora_rank times: twice at rank 8. Fixed while "
        "ranks are compared, it leaves the learning rate as it is",
        above=0,
    )
    lora_on: tuple[str, ...] = setting(
        ("^(video|audio)(_encoder)?/",),
        "regexes over the paths of attention's projections, such as "
        "video_encoder/blocks4/0/attn/qkv: those that get adapters. The default is all of the "
        "encoders', of MBT its towers'. Of each part of the model (what stands before the first /) "
        "with an adapter nothing else is trained. Towers of which only some layers have adapters "
        "compile longer",
    )

    def check(self) -> None:
        """Refuses expressions that do not compile, and none where there is a rank."""
        for pattern in self.lora_on:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(
                    f"config.model.lora_on: {pattern!r} is no regular expression ({error}); "
                    "mend it."
                ) from error
        if self.lora_rank and not self.lora_on:
            raise UserError(
                f"config.model.lora_on is empty and lora_rank is {self.lora_rank}; name "
                "projections, or give lora_rank 0."
            )


class AdaptedLinear(nnx.Module):
    """A dense layer of attention with an adapter beside its weights.

    Args:
      base: the layer; its parameters stay at their paths.
      rank: of the adapter.
      scale: what the product of its matrices is multiplied by.
      rngs: for the initial weights.
    """

    def __init__(self, base: nnx.Linear, rank: int, scale: float, *, rngs: nnx.Rngs):
        self.kernel, self.bias, self.dtype = base.kernel, base.bias, base.dtype
        self.rank, self.scale = rank, scale
        inputs, outputs = base.kernel.shape
        self.lora_a = nnx.Param(_INIT_A(rngs.params(), (inputs, rank)))
        self.lora_b = nnx.Param(jnp.zeros((rank, outputs)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] to [..., out] in the layer's type."""
        x = x.astype(self.dtype)
        out = dense(x, self.kernel[...])
        out += dense(self.scale * dense(x, self.lora_a[...]), self.lora_b[...])
        return out if self.bias is None else add_bias(out, self.bias[...])


class Adapter(NamedTuple):
    """What of an adapter its arrays' values do not tell."""

    rank: int
    scale: float


def add_adapters(model: nnx.Module, config: LoRAConfig, *, rngs: nnx.Rngs) -> None:
    """Gives a model adapters; BatchNorm in the parts that hold them uses its running statistics.

    Args:
      model: a finished model, changed in place.
      config: which ones; a rank of 0 leaves the model as it is.
      rngs: stream "params"; what the model drew before is not changed.

    Raises:
      UserError: an expression matches no projection, or the rank is larger than one of them.
    """
    if not config.lora_rank:
        return
    projections = dict(_projections(model))
    for pattern in config.lora_on:
        if not any(re.search(pattern, path) for path in projections):
            raise _matches_none(pattern, projections)
    chosen = {
        path: place
        for path, place in projections.items()
        if any(re.search(pattern, path) for pattern in config.lora_on)
    }
    sides = {path: min(getattr(*place).kernel.shape) for path, place in chosen.items()}
    smallest = min(sides, key=lambda path: sides[path])
    if config.lora_rank > sides[smallest]:
        raise UserError(
            f"config.model.lora_rank is {config.lora_rank}, larger than the smaller side of "
            f"{smallest}; give {sides[smallest]} or less."
        )
    scale = config.lora_alpha / config.lora_rank
    for attention, name in chosen.values():
        adapted = AdaptedLinear(getattr(attention, name), config.lora_rank, scale, rngs=rngs)
        setattr(attention, name, adapted)
    parts = {path.split("/")[0] for path in chosen}
    for path, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm) and str(path[0]) in parts:
            module.frozen = True


def _projections(model: nnx.Module) -> Iterator[tuple[str, tuple[nnx.Module, str]]]:
    """(path, (attention that has it, name there)) of each dense layer of attention."""
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Attention | CrossAttention):
            for name in filter(vars(module).__contains__, _PROJECTIONS):
                yield "/".join(map(str, (*path, name))), (module, name)


def _matches_none(pattern: str, projections: Collection[str]) -> UserError:
    parts = ", ".join(sorted({path.split("/")[0] for path in projections}))
    where = f"it has some in {parts}" if parts else "it has none; give lora_rank 0"
    return UserError(
        f"config.model.lora_on: {pattern!r} matches no projection of attention of this model"
        f"{nearest(pattern, projections)}; {where}."
    )


def is_adapter(path: str) -> bool:
    """Whether a parameter is an adapter's."""
    return path.rpartition("/")[2] in (_A, _B)


def frozen_beside_adapters(paths: Collection[str]) -> set[str]:
    """The parameters of one model that its adapters are trained in place of.

    All but adapters in each part of the model that holds one. An encoder that MBT's modalities
    share lies in the part "video"; with it goes what "audio" has of its own.

    Args:
      paths: of all parameters of the model, flat.
    """
    parts = {path.split("/")[0] for path in paths if is_adapter(path)}
    if "video" in parts and not any(path.startswith("audio/blocks/") for path in paths):
        parts.add("audio")
    return {path for path in paths if path.split("/")[0] in parts and not is_adapter(path)}


def adapters_of(model: nnx.Module) -> dict[str, Adapter]:
    """{path of the layer: its adapter} of a model; {} without adapters."""
    return {
        "/".join(map(str, path)): Adapter(module.rank, module.scale)
        for path, module in nnx.iter_modules(model)
        if isinstance(module, AdaptedLinear)
    }


def merged(
    variables: Mapping[str, Any], adapters: Mapping[str, Adapter]
) -> dict[str, np.ndarray[Any, Any]]:
    """The variables of the same model without adapters: their products added to the kernels.

    Args:
      variables: {flat path: array}, parameters and perhaps statistics.
      adapters: from `adapters_of` this model.

    Returns:
      {flat path: array}; kernels are added up in float64 and then of the type that they were.
    """
    found = {path: np.asarray(value) for path, value in variables.items()}
    for layer, adapter in adapters.items():
        a, b = (found.pop(f"{layer}/{name}").astype(np.float64) for name in (_A, _B))
        kernel = found[f"{layer}/kernel"]
        found[f"{layer}/kernel"] = (kernel + adapter.scale * (a @ b)).astype(kernel.dtype)
    return found
