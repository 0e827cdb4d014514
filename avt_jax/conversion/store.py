"""A folder of converted weights: what `avt convert` writes and a training starts from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from avt_jax.errors import UserError
from avt_jax.host.checksum import sha256_of
from avt_jax.host.new_folder import new_folder

_WEIGHTS, _FACTS = "weights.safetensors", "conversion.json"
_FORMAT = 1


@dataclass(frozen=True)
class Converted:
    """Weights in our layout, and what is known of them.

    Attributes:
      kind: "uniformer", "ast", "vit" or "mbt".
      config: fields of the model's config dataclass.
      grid: patches along each axis that the positions are for: (frequency, time) for ast, (time,
        rows, columns) for vit; () where nothing needs it.
      variables: {path: array}, parameters and statistics together, float32.
      source: {"file": name, "sha256": checksum}.
      left_out: official names that have no use here.
    """

    kind: str
    config: dict[str, Any]
    grid: tuple[int, ...]
    variables: dict[str, np.ndarray]
    source: dict[str, str]
    left_out: list[str]


def write_converted(folder: str | Path, converted: Converted) -> None:
    """Writes a folder of converted weights; it appears when it is complete.

    Raises:
      UserError: `folder` is there and not empty.
    """
    with new_folder(folder) as part:
        arrays = {path: np.ascontiguousarray(v) for path, v in converted.variables.items()}
        save_file(arrays, part / _WEIGHTS)
        facts = dataclasses.asdict(dataclasses.replace(converted, variables={}))
        facts |= {"format": _FORMAT, "sha256": sha256_of(part / _WEIGHTS)}
        del facts["variables"]
        (part / _FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def weights_checksum(folder: str | Path) -> str:
    """SHA-256 of a folder's weights, in hexadecimal.

    Raises:
      UserError: they cannot be read.
    """
    try:
        return sha256_of(Path(folder) / _WEIGHTS)
    except OSError as error:
        raise UserError(f"cannot read the weights in {folder}: {error.strerror}.") from error


def is_converted(folder: str | Path) -> bool:
    """Whether `folder` looks like what `write_converted` wrote."""
    return (Path(folder) / _FACTS).is_file()


def read_converted(folder: str | Path) -> Converted:
    """Reads a folder of converted weights and checks it against its checksum.

    Raises:
      UserError: not such a folder, or a damaged one.
    """
    folder = Path(folder)
    if not is_converted(folder):
        raise UserError(
            f"{folder} holds no converted weights ({_FACTS} is missing); give a folder that "
            "'avt convert' wrote."
        )
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        version, expected = facts.pop("format"), facts.pop("sha256")
        if version != _FORMAT:
            raise UserError(
                f"{folder} has format {version}, this version of avt_jax reads {_FORMAT}; "
                "convert the weights again."
            )
        if sha256_of(folder / _WEIGHTS) != expected:
            raise ValueError("the checksum does not match")
        facts["grid"] = tuple(facts["grid"])
        return Converted(variables=load_file(folder / _WEIGHTS), **facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"{folder} is damaged ({error}); convert the weights again.") from error
