"""What `avt ablate` compares: axes, their settings, and the runs that a command line asks for.

The grid is data. A new setting is an entry in `GRID`; a new axis is one more dictionary there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avt_jax.errors import UserError, nearest
from avt_jax.experiment.config import Overrides, flat, load_config
from avt_jax.models.fusions import FUSIONS

OTHERS = "others"


@dataclass(frozen=True)
class Setting:
    """One value of an axis: what it changes in the config.

    Attributes:
      label: in tables and plots.
      values: {field of the config: value}.
      on: loss terms that must have a weight in the config, or there is nothing to compare.
      off: loss terms to leave out; OTHERS = all that are not in `on`.
    """

    label: str
    values: Mapping[str, Any] = field(default_factory=dict)
    on: tuple[str, ...] = ()
    off: tuple[str, ...] | str = ()


def _losses() -> dict[str, Setting]:
    terms = ("contrastive", "matching", "masked_audio")
    settings: dict[str, tuple[str, tuple[str, ...]]] = {
        "classification": ("classification alone", ())
    }
    settings |= {term: (f"+ {term.replace('_', ' ')}", (term,)) for term in terms}
    settings["all"] = ("all terms", terms)
    return {
        name: Setting(label, on=("classification", *added), off=OTHERS)
        for name, (label, added) in settings.items()
    }


def _masking() -> dict[str, Setting]:
    strategies = ("activity", "random", "time", "frequency", "time_frequency")
    return {"none": Setting("nothing hidden", off=("masked_audio",))} | {
        name: Setting(name.replace("_", " + "), {"masking.strategy": name}, on=("masked_audio",))
        for name in strategies
    }


def _bottleneck(number: int, exchange: str = "average") -> Setting:
    return Setting(
        f"bottleneck, L = {number}" + ("" if exchange == "average" else f", {exchange}"),
        {
            "model.fusion": "bottleneck",
            "model.num_bottleneck": number,
            "model.exchange": exchange,
        },
    )


def _fusions() -> dict[str, Setting]:
    bottlenecks = {
        "bottleneck-4": _bottleneck(4),
        "bottleneck-1": _bottleneck(1),
        "bottleneck-16": _bottleneck(16),
        "bottleneck-4-sequential": _bottleneck(4, "sequential"),
    }
    # A new fusion is compared without an entry here.
    return bottlenecks | {
        name: Setting(module.LABEL, {"model.fusion": name})
        for name, module in FUSIONS.items()
        if name != "bottleneck"
    }


# {axis: {setting: what it changes}}. The first setting is what the others are compared with; names
# are folders. A new axis or setting is an entry here.
GRID: dict[str, dict[str, Setting]] = {
    "losses": _losses(),
    "masking": _masking(),
    "fusion": _fusions(),
}


@dataclass(frozen=True)
class Run:
    """One training of the grid.

    Attributes:
      setting: its name in the axis.
      label: in the table.
      seed: config.seed.
      folder: of this run.
      changes: {field: value} of the config, the user's and the setting's.
    """

    setting: str
    label: str
    seed: int
    folder: Path
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """What the command line asks for.

    Attributes:
      config: as given to --config.
      axis: name in GRID.
      out: folder of the study.
      split: that is evaluated.
      settings: {name: label} in the table's order.
      runs: seed by seed, so that every setting has a result early.
      broken: {name: why this setting cannot run at all}.
    """

    config: str
    axis: str
    out: Path
    split: str
    settings: Mapping[str, str]
    runs: Sequence[Run]
    broken: Mapping[str, str]


def changes(setting: Setting, weights: Mapping[str, float]) -> dict[str, Any]:
    """What a setting changes in a config.

    Args:
      setting: of the grid.
      weights: config.losses.weights.

    Returns:
      {field: value}.

    Raises:
      UserError: a term that the setting is about has no weight.
    """
    for term in setting.on:
        if not weights.get(term):
            raise UserError(
                f"config.losses.weights.{term} is {weights.get(term, 0):g}, so there is nothing "
                "to compare; give it the weight that it shall have."
            )
    off = setting.off
    if off == OTHERS:
        off = tuple(name for name in weights if name not in setting.on)
    # A term that is off already, or that this config does not know, needs no change.
    zeros = {f"losses.weights.{name}": 0.0 for name in off if weights.get(name)}
    return {**setting.values, **zeros}


def plan_study(
    config: str,
    axis: str,
    *,
    settings: Sequence[str] = (),
    seeds: int = 3,
    out: str | Path = "runs/ablation",
    split: str = "test",
    overrides: Overrides = (),
) -> Study:
    """Lays out the runs of a study.

    Args:
      config: recipe or file, as for `load_config`.
      axis: name in GRID.
      settings: names of the axis; none = all.
      seeds: runs a setting; the first has the config's seed, the others the numbers after it.
      out: folder of the study.
      split: to evaluate.
      overrides: for `load_config`, of every run.

    Raises:
      UserError: a setting, seed count or config that is wrong for every run.
    """
    chosen = _chosen(axis, settings)
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: give 1 or more.")
    base, common = load_config(config, overrides), flat(overrides)
    own: dict[str, dict[str, Any]] = {}
    broken: dict[str, str] = {}
    for name, setting in chosen.items():
        try:
            found = changes(setting, base.losses.weights.to_dict())
            load_config(config, {**common, **found})
        except UserError as error:
            broken[name] = str(error)
        else:
            own[name] = found
    runs = [
        Run(
            name,
            chosen[name].label,
            seed,
            Path(out) / axis / name / f"seed{seed}",
            {**common, **found, "seed": seed},
        )
        for seed in range(base.seed, base.seed + seeds)
        for name, found in own.items()
    ]
    labels = {name: setting.label for name, setting in chosen.items()}
    return Study(config, axis, Path(out), split, labels, runs, broken)


def _chosen(axis: str, settings: Sequence[str]) -> dict[str, Setting]:
    """The settings of an axis, or those named, in the order of the grid."""
    if axis not in GRID:
        raise UserError(
            f"there is no axis {axis!r}{nearest(axis, GRID)}; the axes are {', '.join(GRID)}."
        )
    grid = GRID[axis]
    for name in settings:
        if name not in grid:
            raise UserError(
                f"--settings: {axis} has no {name!r}{nearest(name, grid)}; "
                f"it has {', '.join(grid)}."
            )
    return {name: setting for name, setting in grid.items() if not settings or name in settings}
