"""The baseline by itself: what textbook features reach on a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avt_jax.errors import UserError
from avt_jax.evaluation.baseline import AUDIO, VIDEO, Baseline
from avt_jax.evaluation.intervals import Interval, mean_interval
from avt_jax.evaluation.multi_label.intervals import (
    draw,
    interval,
    mean_average_precision,
    num_draws,
)
from avt_jax.experiment.judging.reference import clip_names, groups_of, read_both
from avt_jax.experiment.splits import open_source, read_info

MODALITIES = {"audio and video": (VIDEO, AUDIO), "audio alone": (AUDIO,), "video alone": (VIDEO,)}


@dataclass(frozen=True)
class BaselineResult:
    """What the baseline reached.

    Attributes:
      found: {label set: {modalities: accuracy with its interval over sources, or mAP of a
        multi-label set}}.
      majority: {label set: share of the evaluated clips of the training split's largest class}.
      chance: {multi-label set: mAP of scores that say nothing}; the others are in `majority`.
      classes: {label set: number of classes}.
      num_train: training clips that were used.
      num_clips: clips that were judged.
    """

    found: dict[str, dict[str, Interval]]
    majority: dict[str, float]
    chance: dict[str, float]
    classes: dict[str, int]
    num_train: int
    num_clips: int


def run_baseline(
    path: str, *, split: str = "test", train_split: str = "train", group_by: str | None = None
) -> BaselineResult:
    """Fits the baseline to the training split and judges it on another.

    Args:
      path: shard folder, or its URL.
      split: is judged.
      train_split: is fitted to, at most 5,000 of its clips.
      group_by: regular expression; see `evaluate_run`.

    Raises:
      UserError: no such shards or split, a bad pattern, or no clip of any class.
    """
    info = read_info(path)
    train, source = open_source(path, train_split), open_source(path, split)
    group_n = groups_of(clip_names(source), group_by)
    of_train, found = read_both(train, source)
    groups = group_n[found.index_n]
    made: dict[str, dict[str, Interval]] = {name: {} for name in found.labels}
    majority, chance = {}, {}
    for title, modalities in MODALITIES.items():
        predicted = Baseline(of_train, modalities).predict(found)
        for name, one in predicted.items():
            label = found.labels[name]
            if label.ndim > 1:
                made[name][title] = _mean_ap(one, label, groups, name, path)
            else:
                made[name][title] = mean_interval((one == label).astype(np.float64), groups)
    for name, label in found.labels.items():
        if label.ndim > 1:
            chance[name] = float(label.mean(axis=0)[label.any(axis=0)].mean())
        else:
            largest = np.bincount(of_train.labels[name]).argmax()
            majority[name] = float(np.mean(label == largest))
    classes = {name: len(names) for name, names in info.label_sets.items()}
    counts = (len(of_train.index_n), len(found.index_n))
    return BaselineResult(made, majority, chance, classes, *counts)


def _mean_ap(
    score_ny: np.ndarray, is_ny: np.ndarray, groups_n: np.ndarray, name: str, path: str
) -> Interval:
    value = mean_average_precision(score_ny, is_ny)
    if value is None:
        raise UserError(
            f"no clip that is judged has a class of {name!r} in {path}; give another --split."
        )
    drawn = draw(score_ny, is_ny, groups_n, draws=num_draws(*is_ny.shape))
    return interval(value, drawn.map_b, len(np.unique(groups_n)))
