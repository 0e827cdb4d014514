"""What all readers of weight files share: limits, and one sentence for whatever a file provokes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from avt_jax import errors
from avt_jax.errors import UserError

# Ten times the largest of these models with an optimiser's state.
MOST_BYTES = 8 * 2**30
_MOST_JSON_BYTES = 32 * 2**20
TITLES = {
    "torch": "a PyTorch file",
    "safetensors": "a safetensors file",
    "npz": "an npz file",
    "msgpack": "a Flax checkpoint (msgpack)",
}
MODEL, EMA = "model", "ema"
"""Which weights are taken of a file that has both: as trained, or averaged over the training."""

Say = Callable[[str], None]


def silent(line: str) -> None:
    """Says nothing."""
    del line


def check_bytes(path: Path, count: int) -> None:
    """Raises UserError for more bytes than any of these models has."""
    if count > MOST_BYTES:
        raise UserError(
            f"{path} claims to hold {count / 2**30:.1f} GiB, more than any of these models "
            f"({MOST_BYTES / 2**30:g} GiB are read at most); give a file with the weights only."
        )


def reading(path: Path, title: str) -> AbstractContextManager[None]:
    """Turns what a library raises of a damaged file into a UserError; `title` is what it is."""
    wrong, advice = f"cannot be read as {title}", "it is damaged or incomplete: download it again"
    return errors.reading(path, wrong, advice)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: it cannot be read, is too large, or is no object.
    """
    with reading(path, "a JSON object"):
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise ValueError(f"it is larger than {_MOST_JSON_BYTES // 2**20} MiB")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is another value")
        return found


def choose(
    path: Path, model: str | None, averaged: str | None, wanted: str | None, say: Say
) -> str | None:
    """Which of the weights in a file are taken; says so where there is a choice.

    Args:
      path: for messages.
      model: where the weights as trained are; None = nowhere.
      averaged: where their average is; None = nowhere.
      wanted: `MODEL`, `EMA`, or None: the weights as trained, or what is there.
      say: is told.

    Raises:
      UserError: what is wanted is not there.
    """
    if wanted == EMA and averaged is None:
        raise UserError(f"{path} has no averaged weights; leave --weights ema out.")
    if wanted == MODEL and model is None and averaged is not None:
        raise UserError(f"{path} has averaged weights only; leave --weights model out.")
    taken = averaged if wanted == EMA or model is None else model
    if averaged is not None and model is not None:
        other, option = (model, MODEL) if taken == averaged else (averaged, EMA)
        say(f"taken are the weights under {taken!r}; {other!r} would be --weights {option}")
    elif averaged is not None:
        say(f"taken are the averaged weights under {averaged!r}; there are no others")
    return taken
