"""Trainings that start from converted weights: `config.init`.

Positions and tubelets are brought to the size of the new input; everything else has to fit, and
what is left out or stays random is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flax import nnx

from avt_jax.conversion.mapping import check_complete
from avt_jax.conversion.store import Converted
from avt_jax.errors import UserError
from avt_jax.models.encoders.ast import AST, patch_grid
from avt_jax.models.encoders.uniformer import UniFormer
from avt_jax.models.encoders.vit import ViT
from avt_jax.models.inputs import InputSpec
from avt_jax.models.mbt import MBT
from avt_jax.models.posemb import adapt_ast_grid, resize_vit_grid
from avt_jax.settings import Block, setting

_ENCODERS = {"uniformer": UniFormer, "ast": AST, "vit": ViT}
_ENCODER_HEAD = re.compile(r"head(_norm)?/")
_MODEL_HEAD = re.compile(r"(heads|head/layers)/")

Variables = dict[str, np.ndarray]


@dataclass(frozen=True)
class InitConfig(Block, where="config.init"):
    """The config block `init`: folders to start from; "" keeps the random weights."""

    video: str = setting(
        "", "converted weights (uniformer or vit) for the video encoder; empty = random", empty=True
    )
    audio: str = setting(
        "", "converted weights (ast; vit for MBT) for the audio encoder; empty = random", empty=True
    )
    model: str = setting(
        "",
        "the whole model: converted weights (mbt), or a run folder of the same model. Heads of "
        "another number of classes stay random",
        empty=True,
    )

    def check(self) -> None:
        """Refuses a whole model together with its encoders."""
        if self.model and (self.video or self.audio):
            raise UserError(
                f"config.init.model is {self.model!r} and so are config.init.video or audio given; "
                "give the whole model or its encoders."
            )


def encoder_variables(
    converted: Converted, model: nnx.Module, modality: str, spec: InputSpec
) -> tuple[Variables, str]:
    """Converted weights as variables of one encoder of a model.

    Args:
      converted: from `read_converted`.
      model: an AVT or MBT; shapes are enough.
      modality: "video" or "audio".
      spec: the shape of what the model reads.

    Returns:
      ({path in the model: array}, what was done, in words).

    Raises:
      UserError: the weights are not of this encoder.
    """
    if isinstance(model, MBT):
        tower, prefix = getattr(model, modality, None), modality
        kinds, grid = ("vit",), _mbt_grid(model, modality, spec)
    else:
        tower, prefix = getattr(model, f"{modality}_encoder", None), f"{modality}_encoder"
        kinds = tuple(kind for kind, known in _ENCODERS.items() if isinstance(tower, known))
        grid = _encoder_grid(tower, spec)
    if tower is None:
        raise UserError(f"the model has no {modality} encoder; leave config.init.{modality} empty.")
    if converted.kind not in kinds:
        raise UserError(
            f"the weights are of kind {converted.kind}, the {modality} encoder takes "
            f"{' or '.join(kinds)}; convert those, or choose another encoder in config.model."
        )
    shapes = _shapes(tower)
    found = {k: v for k, v in converted.variables.items() if not _ENCODER_HEAD.match(k)}
    said = [f"{modality} encoder from {converted.kind} weights ({converted.source['file']})"]
    if len(found) < len(converted.variables):
        said.append("their head left out")
    if converted.kind == "ast":
        said += _adapt_ast(found, converted.grid, grid)
    elif converted.kind == "vit":
        said += _adapt_vit(found, converted, shapes, grid)
    norm = {}
    if isinstance(model, MBT):
        norm = {k: found.pop(k) for k in list(found) if k.startswith("norm/")}
        if "blocks/0/norm1/scale" not in shapes:
            found = {k: v for k, v in found.items() if not k.startswith("blocks/")}
            said.append("their blocks left out, as the encoder is shared")
    _check(found, shapes)
    return {f"{prefix}/{path}": value for path, value in found.items()} | norm, ", ".join(said)


def model_variables(variables: Variables, model: nnx.Module) -> tuple[Variables, str]:
    """Weights of a whole model as variables of another with, perhaps, other classes.

    Args:
      variables: {path: array}, parameters and statistics together.
      model: the model to train; shapes are enough.

    Returns:
      ({path: array}, what was done, in words).

    Raises:
      UserError: anything but a head differs.
    """
    shapes = _shapes(model)
    fresh = sorted(
        path
        for path in shapes.keys() | variables.keys()
        if _MODEL_HEAD.match(path) and np.shape(variables.get(path, ())) != shapes.get(path)
    )
    found = {path: value for path, value in variables.items() if path not in fresh}
    _check(found, {path: shape for path, shape in shapes.items() if path not in fresh})
    new = sorted({path.rsplit("/", 1)[0] for path in fresh if path in shapes})
    return found, f"all weights but new heads: {', '.join(new)}" if new else "all weights"


def _shapes(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    state = nnx.state(module, (nnx.Param, nnx.BatchStat))
    return {"/".join(map(str, path)): tuple(leaf.shape) for path, leaf in nnx.to_flat_state(state)}


def _check(found: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    check_complete(
        [path for path in shapes if path not in found],
        [path for path in found if path not in shapes],
        [
            f"{path} {np.shape(value)} for {shapes[path]}"
            for path, value in found.items()
            if path in shapes and np.shape(value) != shapes[path]
        ],
    )


def _encoder_grid(encoder: nnx.Module, spec: InputSpec) -> tuple[int, ...]:
    if isinstance(encoder, AST):
        return patch_grid(spec.fbank_frames, spec.mel_bins, encoder.config)
    if isinstance(encoder, ViT):
        side = spec.frame_size_px // encoder.config.patch_px
        return spec.num_frames // encoder.config.tubelet_frames, side, side
    return ()


def _mbt_grid(model: MBT, modality: str, spec: InputSpec) -> tuple[int, int, int]:
    patch = model.config.patch_px
    if modality == "audio":
        return 1, spec.fbank_frames // patch, spec.mel_bins // patch
    side = spec.frame_size_px // patch
    return spec.num_frames // model.config.tubelet_frames, side, side


def _adapt_ast(found: Variables, old: tuple[int, ...], new: tuple[int, ...]) -> list[str]:
    if tuple(old) == tuple(new):
        return []
    tokens, patches = np.split(found["pos_embed"][0], [2])
    found["pos_embed"] = np.concatenate([tokens, adapt_ast_grid(patches, old, new)])[None]
    return [f"positions adapted from {tuple(old)} to {new} (frequency, time)"]


def _adapt_vit(
    found: Variables, converted: Converted, shapes: Mapping, new: tuple[int, int, int]
) -> list[str]:
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
    if old and old != tuple(new):
        patches = np.tile(resize_vit_grid(patches, old[1:], new[1:]), (new[0], 1))
        said.append(f"positions adapted from {old} to {tuple(new)} (time, rows, columns)")
    if "embed/cls_token" not in shapes:
        del found["embed/cls_token"]
        cls = cls[:0]
        said.append("class token left out")
    found["embed/pos_embed"] = np.concatenate([cls, patches])[None]
    return said
