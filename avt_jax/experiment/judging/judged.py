"""The clips that a run is judged by: where they are, and whether their classes are the run's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avt_jax.data.loading.config import DataConfig
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Say
from avt_jax.experiment.splits import OwnData, check_classes, open_source, own_split, read_info
from avt_jax.training import shards_place
from avt_jax.training.checkpoint import Run

_SETTING = "config.data.path in {}/config.json"


def find_shards(given: str | None, saved: str, run_dir: Path, say: Say) -> str:
    """The shard folder that was given, or else the run's, wherever it lies by now."""
    option = "--data SHARDS"
    if given is not None:
        return shards_place.find(given, None, origin="--data", option=option)
    origin = _SETTING.format(run_dir)
    found = shards_place.find(saved, run_dir, origin=origin, option=option)
    if found != saved:
        say(f"the run's shards were found at {found}")
    return found


def open_judged(
    settings: DataConfig, trained: Run, given: str | OwnData | None, run_dir: Path
) -> tuple[Any, tuple[str, ...]]:
    """(the split's clips, their multi-label sets); their classes must be the run's.

    A set may be multi-label in the data alone: VGGSounder judges what was trained on VGGSound.
    """
    if not isinstance(given, OwnData):
        origin = _SETTING.format(run_dir) if given is None else "--data"
        found = read_info(settings.path, origin, settings)
        check_classes(trained.label_sets, found.label_sets, settings.path)
        source = open_source(settings.path, settings.eval_split, tokens=settings.is_tokens)
        return source, found.multi_label
    check_classes(trained.label_sets, given.label_sets, "OwnData")
    if given.val is None:
        raise UserError("OwnData.val is None; give the clips to evaluate there.")
    return own_split(given, "val"), tuple(given.multi_label)
