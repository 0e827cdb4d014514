"""Trainings that start from a run of one's own: what fits is taken, and all else is said.

Positions are brought to the size of the new input. Encoders fit as a whole or not at all; of the
rest each block and each layer is looked at by itself.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from avt_jax.conversion import KINDS
from avt_jax.conversion.initial import (
    check_meaning,
    encoder_prefix,
    encoder_variables,
    fitted,
    input_shape,
    shapes_to_fill,
)
from avt_jax.conversion.mapping import Shapes, Variables
from avt_jax.conversion.same_meaning import check_same
from avt_jax.conversion.store import Converted
from avt_jax.errors import UserError
from avt_jax.models.inputs import InputSpec
from avt_jax.models.mbt import MBT

_HEAD = re.compile(r"(?:heads|head/layers/[^/]+)/([^/]+)/(?:kernel|bias)$")
_BLOCK = re.compile(r".*?blocks\d*/\d+(?=/)")
_MODALITIES = ("video", "audio")
_OF_A_LAYER = ("kernel", "bias", "scale", "mean", "var")
# What of AVT's config the shapes of arrays do not tell.
_TOLD = ("num_heads", "decoder_heads")
_MOST_NAMES = 12


@dataclass(frozen=True)
class Trained:
    """A trained model to start from.

    Attributes:
      model: an AVT or MBT as its run has it; shapes are enough.
      variables: {path: array}, parameters and statistics together.
      spec: the shape of what it reads.
      label_sets: {label set: class names}, in the order of the logits.
    """

    model: nnx.Module
    variables: Variables
    spec: InputSpec
    label_sets: Mapping[str, Sequence[str]]


def encoder_of_run(
    trained: Trained, model: nnx.Module, modality: str, spec: InputSpec
) -> tuple[Variables, str]:
    """One encoder of a trained model as variables of one of another model.

    Args:
      trained: the run.
      model: the model to train; shapes are enough.
      modality: "video" or "audio".
      spec: the shape of what it reads.

    Returns:
      ({path in the model: array}, what was done, in words).

    Raises:
      UserError: either has no such encoder, or they do not fit.
    """
    converted = converted_encoder(trained, modality)
    if converted is None:
        raise UserError(f"the run's model has no {modality} encoder; give another run.")
    return encoder_variables(converted, model, modality, spec)


def variables_of_run(
    trained: Trained,
    model: nnx.Module,
    spec: InputSpec,
    label_sets: Mapping[str, Sequence[str]],
    *,
    strict: bool,
) -> tuple[Variables, str]:
    """What of a trained model fits another one.

    Args:
      trained: the run.
      model: the model to train; shapes are enough.
      spec: the shape of what it reads.
      label_sets: its classes.
      strict: refuse anything but heads that stays random or is not used.

    Returns:
      ({path: array}, what was done, in words). Of a head whose classes are others, or in another
      order, those of the same names keep their rows; new ones start as the mean of these.

    Raises:
      UserError: nothing fits, weights fit by their shapes alone, or, if `strict`, not all fits.
    """
    shapes = shapes_to_fill(model, trained.variables)
    found: Variables = {}
    said: list[str] = []
    for modality in _MODALITIES:
        values, notes = _encoder(trained, model, modality, spec)
        found |= values
        said += notes
    _check_settings(trained.model, model)
    inside = {f"{encoder_prefix(one, m)}/" for one in (model, trained.model) for m in _MODALITIES}
    if _fusion(trained.model) != _fusion(model):
        inside.add("fusion/")

    def is_rest(path: str) -> bool:
        return not path.startswith(tuple(inside)) and not _HEAD.match(path)

    rest = {path: value for path, value in trained.variables.items() if is_rest(path)}
    wanted = {path: shape for path, shape in shapes.items() if is_rest(path)}
    found |= _whole_parts(rest, wanted)
    if not found:
        raise UserError(
            "no part of the run's model fits this one; give the config that the run has, or "
            "another run."
        )
    new = [k for k in shapes if k not in found and not _HEAD.match(k)]
    unused = [k for k in trained.variables if k not in found and not _HEAD.match(k)]
    apart = [f"new: {_listed(new, shapes)}"] if new else []
    apart += [f"not used: {_listed(unused, trained.variables)}"] if unused else []
    if strict and apart:
        raise UserError(
            "config.init.strict is True and not all of the run's model fits this one "
            f"({'; '.join(apart)}); give the config that the run has, or leave strict out."
        )
    heads, of_heads = _heads(trained, shapes, label_sets)
    kept = f"{len(found)} of {len(shapes)} arrays" if apart else "all weights"
    return found | heads, "; ".join([kept, *said, *apart, *of_heads])


def converted_encoder(trained: Trained, modality: str) -> Converted | None:
    """An encoder of a run in the form of published weights; None without one, or cached tokens."""
    prefix = encoder_prefix(trained.model, modality)
    tower = getattr(trained.model, prefix, None)
    if tower is None:
        return None
    is_mbt = isinstance(trained.model, MBT)
    variables = {
        path.removeprefix(f"{prefix}/"): value
        for path, value in trained.variables.items()
        if path.startswith(f"{prefix}/") or (is_mbt and path.startswith("norm/"))
    }
    kind = next((name for name, kind in KINDS.items() if isinstance(tower, kind.FITS)), None)
    if kind is None:
        return None
    config = trained.model.config if isinstance(trained.model, MBT) else tower.config
    grid = tower.token_grid(input_shape(modality, trained.spec))
    return Converted(kind, dataclasses.asdict(config), grid, variables, {"file": "a run"}, [])


def _encoder(
    trained: Trained, model: nnx.Module, modality: str, spec: InputSpec
) -> tuple[Variables, list[str]]:
    """The encoder of a modality, where both models have it and it fits; what was done, in words."""
    converted = converted_encoder(trained, modality)
    tower = getattr(model, encoder_prefix(model, modality), None)
    if converted is None or not isinstance(tower, KINDS[converted.kind].FITS):
        return {}, []
    try:
        found, notes = fitted(converted, model, modality, spec)
    except UserError:
        return {}, []
    check_meaning(converted, model, modality)
    return found, [f"{modality} {note}" for note in notes]


def _check_settings(trained: Any, model: Any) -> None:
    """Refuses blocks that fit by their shapes and would compute something else."""
    if type(trained) is not type(model):
        return
    if isinstance(model, MBT):
        stored, config, told = dataclasses.asdict(trained.config), model.config, KINDS["mbt"].TOLD
    else:
        stored, config, told = {name: getattr(trained, name) for name in _TOLD}, model, _TOLD
    check_same(stored, config, told, "config.model")


def _fusion(model: Any) -> str:
    return f"MBT {model.config.fusion}" if isinstance(model, MBT) else f"AVT {model.fusion_kind}"


def _part(path: str) -> str:
    """What is taken or left as one: a block, a layer, or an array by itself."""
    if block := _BLOCK.match(path):
        return block[0]
    layer, _, name = path.rpartition("/")
    return layer if name in _OF_A_LAYER else path


def _whole_parts(found: Variables, shapes: Shapes) -> Variables:
    """What of `found` is of a part of which all arrays are there and have the right shape."""
    apart = {
        _part(path)
        for path in found.keys() | shapes.keys()
        if path not in shapes or np.shape(found.get(path, ())) != shapes[path] or path not in found
    }
    return {path: value for path, value in found.items() if _part(path) not in apart}


def _listed(paths: Sequence[str], of: Iterable[str]) -> str:
    """Parts by name, those of a module of which all is listed as one."""
    listed = set(paths)
    whole = {path.split("/")[0] for path in paths}
    whole -= {path.split("/")[0] for path in of if path not in listed and not _HEAD.match(path)}
    tops = [path.split("/")[0] for path in paths]
    names = [top for top in tops if top in whole]
    names += [_part(path) for path, top in zip(paths, tops, strict=True) if top not in whole]
    names = list(dict.fromkeys(names))
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _heads(
    trained: Trained, shapes: Shapes, label_sets: Mapping[str, Sequence[str]]
) -> tuple[Variables, list[str]]:
    """Layers of the heads whose classes the run knows; a line for each set that is not the same."""
    found: Variables = {}
    said: dict[str, str] = {}
    for path, shape in shapes.items():
        match = _HEAD.match(path)
        if match is None:
            continue
        name, value = match[1], trained.variables.get(path)
        old, new = list(trained.label_sets.get(name, ())), list(label_sets.get(name, ()))
        known = [old.index(one) for one in new if one in old]
        if value is None or value.shape[:-1] != shape[:-1] or not known:
            said[name] = f"new head of {name}"
        elif old == new:
            found[path] = value
        else:
            rows = np.broadcast_to(value[..., known].mean(-1, keepdims=True), shape).copy()
            rows[..., [i for i, one in enumerate(new) if one in old]] = value[..., known]
            found[path] = rows.astype(value.dtype)
            said[name] = f"head of {name}: {len(known)} of {len(new)} classes carried over"
            if len(known) < len(new):
                said[name] += ", the others start as their mean"
    return found, list(said.values())
