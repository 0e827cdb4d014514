"""From a published file to a folder of our own: what `avt convert` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx

from avt_jax import tree
from avt_jax.conversion import KINDS, ast, check_kind, convert, infer_config
from avt_jax.conversion.files import folders
from avt_jax.conversion.files.reading import Say, silent
from avt_jax.conversion.hints import Hints
from avt_jax.conversion.sources import read_state_dict
from avt_jax.conversion.store import Converted, write_converted
from avt_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Done:
    """What was converted.

    Attributes:
      converted: what was written.
      skeleton: the structure of the model that the weights are of.
      num_read: arrays in the published file.
    """

    converted: Converted
    skeleton: tree.Skeleton[nnx.Module]
    num_read: int


def convert_released(
    kind: str,
    source: Path,
    out: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    mel_bins: int | None = None,
    weights: str | None = None,
    origin: Mapping[str, str] | None = None,
    say: Say = silent,
) -> Done:
    """Converts published weights into a folder; it appears when it is complete.

    Args:
      kind: "uniformer", "ast", "vit" or "mbt".
      source: file, index or folder, see `read_state_dict`.
      out: new folder.
      changes: {field of the model's config: value}, what neither weights nor config.json tell.
      mel_bins: of ast's weights; None = as config.json says, or 128.
      weights: see `read_state_dict`.
      origin: what else is to be known of the source, such as {"name", "licence"}.
      say: is told what was guessed or left out.

    Raises:
      UserError: weights of something else or damaged, a field that there is not, or a folder that
        is in use.
    """
    check_kind(kind)
    state_dict = read_state_dict(kind, source, weights=weights, say=say)
    try:
        published = folders.published_config(source, KINDS[kind].MODEL_TYPE)
        told = set(changes or {})
        hints = Hints(mel_bins, published, _without(told, say))
        config = _replaced(infer_config(kind, state_dict, hints), dict(changes or {}))
        skeleton, variables, left_out = convert(kind, state_dict, config, dtype="float32")
        grid = KINDS[kind].grid(config, state_dict, ast.mel_bins_of(hints))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    about = {"file": source.name, "sha256": folders.checksum(source), **(origin or {})}
    fields = dataclasses.asdict(config)
    converted = Converted(kind, fields, grid, variables, about, sorted(left_out))
    write_converted(out, converted)
    return Done(converted, skeleton, len(state_dict))


def _without(told: set[str], say: Say) -> Say:
    """Says nothing of a guess that the user has already answered."""
    return silent if "stride" in told else say


def _replaced(config: Any, changes: dict[str, Any]) -> Any:
    known = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name, value in changes.items():
        if name not in known:
            raise UserError(
                f"--set {name}={value} is no field{nearest(name, known)}; "
                f"the fields are {', '.join(known)}."
            )
        number = isinstance(known[name], int | float) and isinstance(value, int | float)
        if not number and type(value) is not type(known[name]) and name != "stride":
            raise UserError(
                f"--set {name}={value}: give a value like the one that was found, {known[name]!r}."
            )
    return dataclasses.replace(config, **changes)
