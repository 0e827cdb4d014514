"""The baseline by itself: what textbook features reach on a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avt_jax.errors import UserError
from avt_jax.evaluation.baseline import AUDIO, VIDEO, Baseline
from avt_jax.evaluation.intervals import Interval, mean_interval
from avt_jax.experiment.judging.reference import clip_names, groups_of, read_both
from avt_jax.experiment.splits import open_source, read_info

MODALITIES = {"audio and video": (VIDEO, AUDIO), "audio alone": (AUDIO,), "video alone": (VIDEO,)}


@dataclass(frozen=True)
class BaselineResult:
    """What the baseline reached.

    Attributes:
      top1: {label set: {modalities: accuracy with its interval over sources}}.
      majority: {label set: share of the evaluated clips of the training split's largest class}.
      classes: {label set: number of classes}.
      num_train: training clips that were used.
      num_clips: clips that were judged.
    """

    top1: dict[str, dict[str, Interval]]
    majority: dict[str, float]
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
      UserError: no such shards or split, or a bad pattern.
    """
    info = read_info(path)
    if set(info.multi_label) == set(info.label_sets):
        raise UserError(
            f"all label sets of {path} are multi-label, and the baseline names one class of a "
            "clip; evaluate a model instead."
        )
    train, source = open_source(path, train_split), open_source(path, split)
    group_n = groups_of(clip_names(source), group_by)
    of_train, found = read_both(train, source)
    groups = group_n[found.index_n]
    top1: dict[str, dict[str, Interval]] = {name: {} for name in found.labels}
    for title, modalities in MODALITIES.items():
        predicted = Baseline(of_train, modalities).predict(found)
        for name, class_n in predicted.items():
            right_n = (class_n == found.labels[name]).astype(np.float64)
            top1[name][title] = mean_interval(right_n, groups)
    majority = {
        name: float(np.mean(label_n == np.bincount(of_train.labels[name]).argmax()))
        for name, label_n in found.labels.items()
    }
    classes = {name: len(names) for name, names in info.label_sets.items()}
    return BaselineResult(top1, majority, classes, len(of_train.index_n), len(found.index_n))
