"""Trainings that start from converted weights: `config.init`.

Positions and tubelets are brought to the size of the new input; everything else has to fit, and
what is left out or stays random is said.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from flax import nnx

from avt_jax.conversion import KINDS, ast
from avt_jax.conversion.mapping import Shapes, Variables, check_complete
from avt_jax.conversion.same_meaning import check_same
from avt_jax.conversion.store import Converted
from avt_jax.errors import UserError
from avt_jax.models.inputs import InputSpec
from avt_jax.models.layers.lora import is_adapter
from avt_jax.models.mbt import MBT
from avt_jax.settings import Block, setting

_ENCODER_HEAD = re.compile(r"head(_norm)?/")
_MODEL_HEAD = re.compile(r"(heads|head/layers)/")


@dataclass(frozen=True)
class InitConfig(Block, where="config.init"):
    """The config block `init`: folders to start from; "" keeps the random weights."""

    video: str = setting(
        "",
        "converted weights (uniformer or vit) for the video encoder, a folder or a name of 'avt "
        "weights list', or a run folder; empty = random",
        empty=True,
    )
    audio: str = setting(
        "",
        "converted weights (ast; vit for MBT) for the audio encoder, a folder or a name, or a "
        "run folder; empty = random",
        empty=True,
    )
    model: str = setting(
        "",
        "the whole model: converted weights (mbt; a folder or a name), or a run folder. What of a "
        "run does not fit stays random and is listed",
        empty=True,
    )
    strict: bool = setting(
        False, "refuse a run folder of which not all fits, but for heads of other classes"
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
    prefix = encoder_prefix(model, modality)
    tower = getattr(model, prefix, None)
    if tower is None:
        raise UserError(f"the model has no {modality} encoder; leave config.init.{modality} empty.")
    kinds = [name for name, kind in KINDS.items() if isinstance(tower, kind.FITS)]
    if converted.kind not in kinds:
        raise UserError(
            f"the weights are of kind {converted.kind}, the {modality} encoder takes "
            f"{' or '.join(kinds)}; convert those, or choose another encoder in config.model."
        )
    check_meaning(converted, model, modality)
    found, notes = fitted(converted, model, modality, spec)
    said = f"{modality} encoder from {converted.kind} weights ({converted.source['file']})"
    return found, ", ".join([said, *notes])


def encoder_prefix(model: nnx.Module, modality: str) -> str:
    """The attribute of a model that holds the encoder of a modality."""
    return modality if isinstance(model, MBT) else f"{modality}_encoder"


def fitted(
    converted: Converted, model: nnx.Module, modality: str, spec: InputSpec
) -> tuple[Variables, list[str]]:
    """Weights of the right kind, brought to the size of an encoder and its input.

    Args:
      converted: of a kind that the model's encoder takes.
      model: has this encoder.
      modality: "video" or "audio".
      spec: the shape of what it reads.

    Returns:
      ({path in the model: array}, what was done, in words).

    Raises:
      UserError: arrays of another shape, or other arrays.
    """
    prefix = encoder_prefix(model, modality)
    tower = getattr(model, prefix)
    shapes = shapes_to_fill(tower, converted.variables)
    found = {k: v for k, v in converted.variables.items() if not _ENCODER_HEAD.match(k)}
    notes = ["their head left out"] if len(found) < len(converted.variables) else []
    grid = tower.token_grid(input_shape(modality, spec))
    notes += KINDS[converted.kind].adapt(found, converted, shapes, grid)
    norm = {}
    if isinstance(model, MBT):
        norm = {k: found.pop(k) for k in list(found) if k.startswith("norm/")}
        if "blocks/0/norm1/scale" not in shapes:
            found = {k: v for k, v in found.items() if not k.startswith("blocks/")}
            notes.append("their blocks left out, as the encoder is shared")
    _check(found, shapes)
    return {f"{prefix}/{path}": value for path, value in found.items()} | norm, notes


def check_meaning(converted: Converted, model: nnx.Module, modality: str) -> None:
    """Refuses weights that fit an encoder by their shapes and would compute something else.

    Raises:
      UserError: what the shapes of arrays do not tell is another; names all fields.
    """
    prefix = encoder_prefix(model, modality)
    config, where = getattr(getattr(model, prefix), "config", None), f"config.model.{prefix}"
    if isinstance(model, MBT):
        config, where = model.config, "config.model"
    told = KINDS[converted.kind].TOLD
    if converted.kind == "ast" and not ast.on_spectrograms(converted):
        told = tuple(name for name in told if name != "stride")
    check_same(converted.config, config, told, where)


def check_whole(converted: Converted, model: nnx.Module) -> None:
    """The same for a whole converted model.

    Raises:
      UserError: what the shapes of arrays do not tell is another.
    """
    if isinstance(model, MBT) and converted.kind == "mbt":
        check_same(converted.config, model.config, KINDS["mbt"].TOLD, "config.model")


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
    shapes = shapes_to_fill(model, variables)
    fresh = sorted(
        path
        for path in shapes.keys() | variables.keys()
        if _MODEL_HEAD.match(path) and np.shape(variables.get(path, ())) != shapes.get(path)
    )
    found = {path: value for path, value in variables.items() if path not in fresh}
    _check(found, {path: shape for path, shape in shapes.items() if path not in fresh})
    new = sorted({path.rsplit("/", 1)[0] for path in fresh if path in shapes})
    return found, f"all weights but new heads: {', '.join(new)}" if new else "all weights"


def shapes_of(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    """{path: shape} of parameters and statistics."""
    state = nnx.state(module, (nnx.Param, nnx.BatchStat))
    return {"/".join(map(str, path)): tuple(leaf.shape) for path, leaf in nnx.to_flat_state(state)}


def shapes_to_fill(module: nnx.Module, given: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The same without the adapters that the given paths lack: these start fresh."""
    shapes = shapes_of(module)
    return {path: one for path, one in shapes.items() if path in given or not is_adapter(path)}


def _check(found: Mapping[str, np.ndarray], shapes: Shapes) -> None:
    check_complete(
        [path for path in shapes if path not in found],
        [path for path in found if path not in shapes],
        [
            f"{path} {np.shape(value)} for {shapes[path]}"
            for path, value in found.items()
            if path in shapes and np.shape(value) != shapes[path]
        ],
    )


def input_shape(modality: str, spec: InputSpec) -> tuple[int, ...]:
    """Of one clip, the batch with it, as an encoder's `token_grid` takes it."""
    if modality == "audio":
        return 1, spec.fbank_frames, spec.mel_bins
    return 1, spec.num_frames, spec.frame_size_px, spec.frame_size_px, 3
